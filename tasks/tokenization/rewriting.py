"""Token consistency (arXiv:2601.14658): a text in which marked words are to be replaced by others.

What comes out is compared word by word, so any model that writes text can be asked. Whether a word that stayed is
written in other tokens (a phantom edit) shows in ids alone: the probe ``token_consistency`` of the method
``mask_aliases`` looks at those.
"""

from __future__ import annotations

import difflib
import json
import random
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from tasks.items import Row, dataset
from tasks.words import STOP_WORDS

INSTRUCTION = (
    "Rewrite the text. Put another suitable word in the place of each word in [brackets], and change nothing else."
)


def targets(words: Sequence[str], share: float, rng: random.Random) -> list[int]:
    """Places of the marked words: a share of those that are plain and not common, at least one."""
    plain = [i for i, w in enumerate(words) if re.fullmatch(r"[A-Za-z]{3,}", w) and w.lower() not in STOP_WORDS]
    return sorted(rng.sample(plain, max(1, round(share * len(plain)))))


def token_consistency(n: int, seed: int, share: float = 0.05, **_: Any) -> dict[str, Any]:
    """Passages with marked words, in seeded order; those with brackets of their own are left out."""
    lines = files("tasks").joinpath("data/passages.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [text for line in lines if "[" not in (text := json.loads(line)["text"])]
    random.Random(f"token_consistency:{seed}").shuffle(texts)

    def make(rng: random.Random, index: int) -> Row:
        words = texts[index].split(" ")
        marked = targets(words, share, rng)
        shown = " ".join(f"[{w}]" if i in marked else w for i, w in enumerate(words))
        return {
            "context": f"{INSTRUCTION}\n\nText: {shown}\n\nRewritten text:",
            "target": " ".join(words),
            "targets": marked,
        }

    return dataset("token_consistency", min(n, len(texts)), seed, make)


def outcome(source: Sequence[str], output: Sequence[str], target: int) -> str:
    """``kept``, ``replaced`` or ``unaligned``: what became of one word, by a diff of words."""
    for _, start, end, first, last in difflib.SequenceMatcher(a=source, b=output, autojunk=False).get_opcodes():
        if not start <= target < end:
            continue
        if end - start == last - first:
            return "kept" if source[target] == output[first + target - start] else "replaced"
        return "replaced" if end - start == 1 and last > first else "unaligned"
    return "unaligned"


def rewritten(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Shares of the marked words that were ``replaced``, ``kept``, or that the output has no place for."""
    source, output = ([w.strip(".,;:!?\"'()[]") for w in text.split()] for text in (doc["target"], results[0]))
    found = [outcome(source, output, target) for target in doc["targets"]]
    return {name: found.count(name) / len(found) for name in ("replaced", "kept", "unaligned")}

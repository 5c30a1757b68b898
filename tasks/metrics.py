"""What the zoo's tasks report for one document: each function is the ``process_results`` of YAMLs.

Margins and bits per byte move long before accuracy does, so every task reports one of them where it can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

Doc = dict[str, Any]
Answers = Sequence[tuple[float, bool]]


def choice(doc: Doc, results: Answers) -> dict[str, float]:
    """``acc`` and ``choice_margin`` (nats): log p(answer) - max log p(other).

    The answer is right where its margin is positive, so a model that gives every option the same (or no number at
    all) is never right by the order of the options.
    """
    scores = [logprob for logprob, _ in results]
    answer = scores.pop(doc["answer"])
    margin = answer - max(scores)
    return {"acc": float(margin > 0), "choice_margin": margin}


def choice_norm(doc: Doc, results: Answers) -> dict[str, float]:
    """As :func:`choice`, and ``acc_norm``: ``acc`` on log-probabilities per character of the option."""
    scaled = [
        (logprob / len(option.strip()), greedy)
        for option, (logprob, greedy) in zip(doc["choices"], results, strict=True)
    ]
    return choice(doc, results) | {"acc_norm": choice(doc, scaled)["acc"]}


def twins(doc: Doc, results: Answers) -> dict[str, Any]:
    """As :func:`choice`, and ``pair_acc``: both twins of a pair right. Guessing one number always gives 0."""
    found = choice(doc, results)
    return {**found, "pair_acc": (doc["pair"], found["acc"])}


def share_of_pairs(items: Sequence[tuple[int, float]]) -> float:
    """Aggregation of ``pair_acc``: the share of pairs in which every twin seen was right."""
    right: dict[int, float] = {}
    for pair, correct in items:
        right[pair] = min(correct, right.get(pair, 1.0))
    return sum(right.values()) / len(right)


def bits_per_byte(doc: Doc, results: Answers) -> dict[str, Any]:
    """``bits_per_byte`` over all bytes of the task, and ``doc_bits_per_byte``, whose mean has a standard error.

    Bits of the target after its context, per UTF-8 byte of the target: comparable between tokenizers.
    """
    logprob, size = results[0][0], len(doc["target"].encode("utf-8"))
    return {"bits_per_byte": (logprob, size), "doc_bits_per_byte": -logprob / math.log(2) / size}


def copied_words(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """``exact_match``: the target's words come first, all and in order; ``word_match``: the share in its place."""
    wanted, given = doc["target"].split(), results[0].split()
    hits = sum(w == g for w, g in zip(wanted, given, strict=False))
    return {"exact_match": float(hits == len(wanted)), "word_match": hits / len(wanted)}


def last_number(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """``exact_match``: the last number of the answer equals the target (thousands separators ignored)."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", results[0].replace(",", ""))
    return {"exact_match": float(bool(numbers) and float(numbers[-1]) == float(doc["target"].replace(",", "")))}


def number(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """``exact_match``: the answer is the target and nothing else; ``last_int``: its last integer is the target.

    ``invalid``: the answer is no bare integer, which is wrong for ``exact_match``.
    """
    given = results[0].strip()
    bare, found = bool(re.fullmatch(r"-?\d+", given)), re.findall(r"-?\d+", given)
    return {
        "exact_match": float(bare and int(given) == int(doc["target"])),
        "last_int": float(bool(found) and int(found[-1]) == int(doc["target"])),
        "invalid": float(not bare),
    }


def counted(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """``exact_match`` of the last integer; ``within_one``, ``under`` and ``over``: how far off it is, and which way.

    Without an integer all of them are 0.
    """
    found = re.findall(r"-?\d+", results[0])
    error = int(found[-1]) - doc["value"] if found else math.nan
    return {
        "exact_match": float(error == 0),
        "within_one": float(abs(error) <= 1),
        "under": float(error < 0),
        "over": float(error > 0),
    }


def same_text(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """``exact_match``: the answer is the target, blanks around it left out."""
    return {"exact_match": float(results[0].strip() == doc["target"].strip())}


def summed(doc: Doc, results: Sequence[str]) -> dict[str, float]:
    """A written sum, its digits compared whatever stands between them: right, and in which way it is wrong.

    ``exact_match``; ``length_right``: as many digits as the sum; ``digit_match``: share of the sum's places, counted
    from the right, that are right; ``off_by_power``: wrong by a power of ten, as by one carry; ``left_aligned``: what
    comes out where addends of unequal lengths are put under each other's first digits.
    """
    wanted, given = doc["sum"], re.sub(r"\D", "", results[0].rpartition("=")[2])
    places = zip(reversed(wanted), reversed(given), strict=False)
    error = str(abs(int(given) - int(wanted))) if given else ""
    return {
        "exact_match": float(given == wanted),
        "length_right": float(len(given) == len(wanted)),
        "digit_match": sum(w == g for w, g in places) / len(wanted),
        "off_by_power": float(re.fullmatch("10*", error) is not None),
        "left_aligned": float(given == doc["left_aligned"] != wanted),
    }

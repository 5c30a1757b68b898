"""Encoding and training of the zoo's tokenizers against the libraries they ride on, and how their time grows.

    taskset -c 0 python ci/bench/tokenizer_throughput.py encode > encode.md
    taskset -c 0 python ci/bench/tokenizer_throughput.py train > train.md

The text is the Python sources of all installed packages, each file once, in the order of their hashes: no part of it
is repeated, and nothing is timed on text that it was trained on. Every side encodes the parts by turns, on one thread
whose CPU time is taken, document by document, its memory of words emptied before each part; ten parts make up 1, 10 or
50 MB. Ratios are those
of the same part, with 95 % intervals over the parts. A size at which ten parts would take more than a minute is left
out. The exponent is that of time against size: 1 is linear, and 2 % above it is 8 % more time for a megabyte of 50.
The second exponent is that of one document: the same megabyte as documents of 10 kB and as a single one.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import tiktoken
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers, trainers

from harness.catalog.spec import MethodSpec
from harness.kinds.tokenizer.adapters import train_sentencepiece
from harness.kinds.tokenizer.base import forget_words
from harness.kinds.tokenizer.bpe import PATTERNS, merges_of, tokens_of
from harness.measure.pairs import timed
from harness.stats.intervals import Estimate, mean_interval, ratio_interval
from harness.subjects.catalog import DEFAULT_MODEL
from harness.subjects.load import load_subject
from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import cut

MB = 1_000_000
SIZES, PARTS = (1, 10, 50), 10
TRAIN_SIZES, TRAININGS = (1, 10), 3
LONGEST_S = 60.0
VOCAB_SIZE = 8192
CORE = "tokenizers BPE"
RUST = ("bpe", "superbpe", "supertokens", "wordpiece", "unigram")
"""On a Rust tokenizer of their own; ``lz_bpe`` and ``constrained_bpe`` encode by the same code as ``bpe``."""
ON_THE_MODELS = ("native", "stochastok", "number_direction", "tst_numbers")
OTHERS = ("tiktoken_enc", "char", "byte", "bpe_dropout", "lib_tokenizer@documents=500", "turkish_hybrid@lexicon=en")
IN_PYTHON = ("superbpe", "constrained_bpe", "lz_bpe", "lib_tokenizer@documents=100")
"""Trained in Python, at 1 MB alone. LiB reads so many documents however large the corpus is."""
TRAINED = ("bpe", "supertokens", "wordpiece", "unigram", "unigram@trainer=sentencepiece", "char", *IN_PYTHON)


def texts_of(files: Sequence[Path]) -> Iterator[str]:
    """Documents of at most about 4 kB: every different file once, in the order of the hashes of their contents."""
    held = {hashlib.sha256(data).digest(): data for file in files if (data := file.read_bytes())}
    for _, data in sorted(held.items()):
        try:
            yield from cut(data.decode("utf-8"))
        except UnicodeDecodeError:
            continue


def take(texts: Iterator[str], size: int) -> list[str]:
    """The next ``size`` bytes of documents, or a little more."""
    taken: list[str] = []
    while size > 0:
        text = next(texts, None)
        if text is None:
            raise SystemExit("the installed packages hold too little text; install more of them")
        taken.append(text)
        size -= len(text.encode())
    return taken


def amount(texts: Sequence[str]) -> int:
    """Bytes of the texts."""
    return sum(len(text.encode()) for text in texts)


@dataclass(frozen=True)
class Side:
    """What is timed: how it encodes texts, how it forgets words, and the side that it rides on."""

    name: str
    run: Callable[[Sequence[str]], object]
    forget: Callable[[], object] = lambda: None
    core: str = ""

    def seconds(self, texts: Sequence[str]) -> float:
        """CPU time for the texts from an empty memory: on one thread the wall time less that of other programs."""
        self.forget()
        return timed(lambda _: nullcontext(partial(self.run, texts)), self.name, 0).cpu_s


def each(encode: Callable[[str], Sequence[int]]) -> Callable[[Sequence[str]], int]:
    """Texts one by one, to the number of their ids."""
    return lambda texts: sum(len(encode(text)) for text in texts)


def rust_side(rust: RustTokenizer, name: str) -> Side:
    """The Rust library by itself. One text at a time without offsets is the fastest of its calls on one thread."""
    forget = getattr(rust.model, "_clear_cache", lambda: None)
    return Side(name, each(lambda text: rust.encode_batch_fast([text], add_special_tokens=False)[0].ids), forget)


def library_bpe(texts: Sequence[str]) -> RustTokenizer:
    """The Rust library's BPE as its users train it."""
    rust = RustTokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    rust.train_from_iterator(texts, trainer)
    return rust


def peers(texts: Sequence[str]) -> Iterator[Side]:
    """The libraries used directly, each with a vocabulary of the same size from the same text."""
    rust = library_bpe(texts)
    yield rust_side(rust, CORE)
    ranks = {token: rank for rank, token in enumerate(tokens_of(merges_of(rust.to_str())))}
    encoding = tiktoken.Encoding("peer", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    yield Side("tiktoken", each(encoding.encode_ordinary))
    for kind in ("bpe", "unigram"):
        model = train_sentencepiece(texts, VOCAB_SIZE, kind)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        yield Side(f"sentencepiece {kind}", each(processor.encode))


def method_sides(name: str, old: Tokenizer, texts: Sequence[str]) -> Iterator[Side]:
    """A method, and the Rust tokenizer of its own vocabulary where it has one."""
    method: Any = MethodSpec.parse(name).build()
    made = method.make(old, method.train(texts, 0) if method.trains else None)
    core = "the model's own" if name in ON_THE_MODELS else "tiktoken" if name == "tiktoken_enc" else ""
    if name in RUST:
        core = f"core of {name}"
        yield rust_side(made.rust, core)
    run = each(made.encode)
    if name == "stochastok":
        rewrite = method.resegmenter(made)
        run = each(lambda text: rewrite(made.encode(text), 0))
    elif name == "bpe_dropout":
        draw = method.drawer(made)
        run = each(lambda text: draw(text, random.Random(0)))
    yield Side(name, run, partial(forget_words, made), core)


def all_sides(texts: Sequence[str]) -> list[Side]:
    """Peers first, then the methods with their cores."""
    old = load_subject(DEFAULT_MODEL).text_tokenizer()
    sides = [*peers(texts), rust_side(old.inner.backend_tokenizer, "the model's own")]  # type: ignore[attr-defined]
    for name in (*RUST, *ON_THE_MODELS, *OTHERS):
        print(f"making {name}", file=sys.stderr)
        sides += method_sides(name, old, texts)
    return sides


Times = dict[tuple[str, int], list[tuple[int, float]]]
"""For a side's name and a size in MB: bytes and seconds of each part."""


def by_turns(sides: Sequence[Side], parts: Sequence[dict[int, list[str]]], a_mb: dict[str, float]) -> Times:
    """All sides on all parts and sizes by turns, in an order drawn anew for each part.

    ``a_mb``: seconds that a megabyte may take a side; a size that would take more than a minute is left out.
    """
    times: Times = {}
    coin = random.Random(0)
    for part in parts:
        visits = [(side, size) for side in sides for size in part if a_mb[side.name] * size < LONGEST_S]
        for side, size in coin.sample(visits, len(visits)):
            texts = part[size]
            times.setdefault((side.name, size), []).append((amount(texts), side.seconds(texts)))
        print(f"timed {len(visits)} visits", file=sys.stderr)
    return times


def shown(estimate: Estimate | None) -> str:
    """A figure with its interval."""
    return "" if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def ratio(times: Times, name: str, core: str, size: int) -> Estimate | None:
    """How many times the core's speed, part by part."""
    ours, theirs = (times.get((key, size)) for key in (name, core))
    return ratio_interval([s for _, s in theirs], [s for _, s in ours]) if ours and theirs else None


def exponent(times: Times, name: str) -> Estimate | None:
    """log(time) against log(bytes) between the smallest size and the largest that was timed, part by part."""
    held = [values for (key, _), values in sorted(times.items()) if key == name]
    if len(held) < 2:
        return None
    ends = zip(held[0], held[-1], strict=True)
    return mean_interval([math.log(t / s) / math.log(m / n) for (n, s), (m, t) in ends])


def document_exponent(side: Side, texts: Sequence[list[str]]) -> Estimate | None:
    """1 + log(time as one document / time as documents of a hundredth) / log 100 on the same text."""
    found = []
    for part in texts:
        whole = "".join(part)
        step = len(whole) // 100
        small = [whole[i : i + step] for i in range(0, len(whole), step)]
        found.append(1 + math.log(side.seconds([whole]) / side.seconds(small)) / math.log(100))
    return mean_interval(found)


def table(sides: Sequence[Side], times: Times, sizes: Sequence[int], further: dict[str, Estimate | None]) -> str:
    """MB/s at each size, ratios and exponents, a row a side."""
    columns = ["", "rides on", *(f"MB/s, {n} MB" for n in sizes), *(f"of its core, {n} MB" for n in sizes)]
    columns += [f"of {CORE}, {sizes[0]} MB", "exponent", *(["in one document"] if further else [])]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for side in sides:
        rates = []
        for size in sizes:
            held = times.get((side.name, size), [])
            rates.append(f"{sum(n for n, _ in held) / sum(s for _, s in held) / MB:.2f}" if held else "")
        cells = [side.name, side.core, *rates, *(shown(ratio(times, side.name, side.core, n)) for n in sizes)]
        cells += [shown(ratio(times, side.name, CORE, sizes[0])), shown(exponent(times, side.name))]
        lines.append("| " + " | ".join([*cells, *([shown(further.get(side.name))] if further else [])]) + " |")
    return "\n".join(lines)


def encode(texts: Iterator[str]) -> str:
    """The table of encoding."""
    sides = all_sides(take(texts, MB))
    parts = [{size: take(texts, size * MB // PARTS) for size in SIZES} for _ in range(PARTS)]
    first = parts[0][min(SIZES)]
    times = by_turns(sides, parts, {side.name: side.seconds(first) * MB / amount(first) for side in sides})
    longs = [take(texts, MB) for _ in range(3)]
    return table(sides, times, SIZES, {side.name: document_exponent(side, longs) for side in sides})


def train(texts: Iterator[str]) -> str:
    """The table of training; one part is one training."""
    sides = [Side(CORE, library_bpe)]
    for kind in ("bpe", "unigram"):
        sides.append(Side(f"sentencepiece {kind}", partial(_sentencepiece, kind)))
    cores = {"unigram@trainer=sentencepiece": "sentencepiece unigram"}
    for name in TRAINED:
        method: Any = MethodSpec.parse(name).build()
        sides.append(Side(name, partial(_trained, method), core=cores.get(name, CORE)))
    parts = [{size: take(texts, size * MB) for size in TRAIN_SIZES} for _ in range(TRAININGS)]
    times = by_turns(sides, parts, {side.name: LONGEST_S / 2 if side.name in IN_PYTHON else 0.0 for side in sides})
    return table(sides, times, TRAIN_SIZES, {})


def _sentencepiece(kind: str, texts: Sequence[str]) -> object:
    return train_sentencepiece(texts, VOCAB_SIZE, kind)


def _trained(method: Any, texts: Sequence[str]) -> object:
    return method.train(texts, 0)


def main() -> None:
    """Print the table that was asked for."""
    kinds = {"encode": encode, "train": train}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        raise SystemExit(f"say which: {' or '.join(kinds)}")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    print(kinds[sys.argv[1]](texts_of(files)))


if __name__ == "__main__":
    main()

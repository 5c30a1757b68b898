"""What a vocabulary of a million costs: seconds, memory and throughput of the structures that hold it.

    taskset -c 0 python ci/bench/million_tokens.py > table.md

The tokens are runs of one to four words, at most 32 characters long, of the installed packages' Python sources, the
most frequent first: what a tokenizer across words would learn. For 10,000, 100,000 and 1,000,000 of them: longest-match
encoding of unseen text, the table by bytes with decomposition of what it does not hold, the split table, and exact
search over as many rows of 64 dimensions for 16 queries at once, as a decode step over so large a vocabulary needs.
"""

from __future__ import annotations

import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from ci.bench.tokenizer_throughput import MB, amount, take, texts_of
from harness.kinds.tokenizer.bpe import PATTERNS
from harness.kinds.tokenizer.longest import LongestMatch
from harness.kinds.tokenizer.spaces import nearest
from harness.kinds.tokenizer.splits import split_table
from harness.kinds.tokenizer.vocabulary import Specials, Vocabulary
from harness.subjects.tiny import ByteIds

SIZES = (10_000, 100_000, 1_000_000)
WORDS, LONGEST, TEXT_MB, UNSEEN_MB = 4, 32, 14, 1
ROW, QUERIES, NEIGHBOURS = 64, 16, 200


def phrases(texts: Sequence[str], count: int) -> list[str]:
    """The most frequent runs of one to four words."""
    cutter = Split(Regex(PATTERNS["gpt2"]), "isolated")
    counts: Counter[str] = Counter()
    for text in texts:
        words = [word for word, _ in cutter.pre_tokenize_str(text)]
        for n in range(1, WORDS + 1):
            counts.update("".join(words[i : i + n]) for i in range(len(words) - n + 1))
    found = [phrase for phrase, _ in counts.most_common() if 1 < len(phrase) <= LONGEST][:count]
    if len(found) < count:
        raise SystemExit(f"the text holds {len(found):,} phrases only, not {count:,}")
    return found


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What the work returns, its CPU seconds, and the MB by which the process has grown."""
    before, started = psutil.Process().memory_info().rss, time.process_time()
    made = work()
    return made, time.process_time() - started, (psutil.Process().memory_info().rss - before) / MB


def row(units: Sequence[str], unseen: Sequence[str]) -> str:
    """One line of the table."""
    tokenizer, seconds, grown = measured(lambda: LongestMatch("l", units, Specials.of(ByteIds())))
    ids, encoding, _ = measured(lambda: sum(len(tokenizer.encode(text)) for text in unseen))
    vocabulary, looking, held = measured(lambda: Vocabulary(tokenizer))
    (size, _), by_bytes, more = measured(lambda: (len(vocabulary.by_bytes), vocabulary.longest))
    tokens = [text[:24].encode() for text in unseen]
    _, decomposing, _ = measured(lambda: [vocabulary.decompose(token) for token in tokens])
    splits, splitting, table = measured(lambda: split_table(vocabulary))
    rows_VD, queries_QD = torch.randn(len(units), ROW), torch.randn(QUERIES, ROW)
    _, search, _ = measured(lambda: nearest(queries_QD, rows_VD, NEIGHBOURS))
    cells = [
        f"{len(units):,}", f"{seconds:.2f} s, {grown:.0f} MB", f"{amount(unseen) / MB / encoding:.2f}",
        f"{amount(unseen) / ids:.2f}", f"{looking + by_bytes:.2f} s, {held + more:.0f} MB",
        f"{1e6 * decomposing / len(tokens):.0f}", f"{splitting:.1f} s, {table:.0f} MB, {len(splits):,}",
        f"{1e3 * search:.0f}",
    ]  # fmt: skip
    assert size >= len(units)
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    texts = texts_of(sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py")))
    unseen, seen = take(texts, UNSEEN_MB * MB), take(texts, TEXT_MB * MB)
    units = phrases(seen, max(SIZES))
    heads = ("tokens", "longest match made", "MB/s", "bytes a token", "table by bytes", "us a decomposition")
    columns = (*heads, "split table, tokens that split", f"ms a search by {QUERIES} rows")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for size in SIZES:
        print(row(units[:size], unseen), flush=True)


if __name__ == "__main__":
    main()

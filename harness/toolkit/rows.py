"""Rows of text to train on: windows of a corpus, in batches of seeded order."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor

from harness.subjects.tokenizer import Tokenizer
from harness.toolkit.corpora import documents

Batch = tuple[Tensor, Tensor]
"""Ids ``[B, T]`` and a mask ``[B, T]``, True for real tokens; padding is on the right and may hold anything."""


def windows(tokenizer: Tokenizer, corpus: str, split: str, count: int, length: int, seed: int) -> Batch:
    """Up to ``count`` rows of ``length`` tokens cut from the joined documents of one split of a corpus.

    Every document begins with the tokenizer's prefix id and ends with its end-of-text id. A text shorter than one row
    is padded.
    """
    stream: list[int] = []
    for text in documents(corpus, split, seed=seed):
        stream += [tokenizer.prefix_id, *tokenizer.encode(text), *tokenizer.eos_ids[:1]]
        if len(stream) >= count * length:
            break
    real = len(stream)
    stream += [0] * (length - real)
    rows = min(count, len(stream) // length)
    mask = torch.arange(rows * length) < real
    return torch.tensor(stream[: rows * length]).view(rows, length), mask.view(rows, length)


def batches(rows: Batch, size: int, steps: int, seed: int, device: torch.device) -> Iterator[Batch]:
    """``steps`` batches of ``size`` rows in seeded order, epoch after epoch."""
    rng = random.Random(f"rows:{seed}")
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order = rng.sample(range(len(rows[0])), len(rows[0])) + order
        picked = torch.tensor([order.pop() for _ in range(size)])
        yield rows[0][picked].to(device), rows[1][picked].to(device)

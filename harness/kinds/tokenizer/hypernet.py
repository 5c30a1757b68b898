"""Training a network that predicts a token's row from the rows of tokens that spell it, on the model's own vocabulary.

Rows are seen standardised: less their mean row, each dimension divided by its deviation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.kinds.tokenizer.splits import Splits
from harness.toolkit.trainer import adamw, optimizer_step

WARM_UP_STEPS = 50
MEASURED = 1000


@dataclass(frozen=True)
class Scaler:
    """The mean row and each dimension's deviation."""

    mean_D: Tensor
    deviation_D: Tensor

    @classmethod
    def of(cls, rows_VD: Tensor) -> Scaler:
        """That of a vocabulary's rows."""
        return cls(rows_VD.mean(0), rows_VD.std(0, correction=0).clamp(min=1e-9))

    def to_unit(self, rows_VD: Tensor) -> Tensor:
        """Standardised rows."""
        return (rows_VD - self.mean_D) / self.deviation_D

    def back(self, unit_VD: Tensor) -> Tensor:
        """The rows again."""
        return unit_VD * self.deviation_D + self.mean_D


def spelling(token: int, splits: Splits, parts: int, rng: random.Random) -> list[int]:
    """A token in at least two parts, drawn among its splits; with a chance of a quarter each, a part is split again.

    A token that no two others spell stands for itself.
    """
    if token not in splits:
        return [token]
    made = list(rng.choice(splits[token]))
    while len(made) < parts and rng.random() < 0.25:
        place = rng.randrange(len(made))
        if made[place] in splits:
            made[place : place + 1] = rng.choice(splits[made[place]])
    return made


def gathered(rows_VD: Tensor, spellings: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows ``[B, P, D]`` of the parts of each spelling, and which of them ``[B, P]`` are real."""
    lengths = torch.tensor([len(s) for s in spellings], device=rows_VD.device)
    real_BP = torch.arange(int(lengths.max()), device=rows_VD.device) < lengths[:, None]
    ids_BP = torch.zeros(real_BP.shape, dtype=torch.long, device=rows_VD.device)
    ids_BP[real_BP] = torch.tensor([i for s in spellings for i in s], device=rows_VD.device)
    return rows_VD[ids_BP], real_BP


class Block(nn.Module):
    """x + W_2 gelu(W_1 x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """The same shape."""
        made: Tensor = states + self.outer(F.gelu(self.inner(states)))
        return made


class RowPredictor(nn.Module):
    """From the rows of the parts to the row of the whole. At the start it gives the mean of the parts."""

    def __init__(self, row: int, width: int, layers: int, heads: int, parts: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(row, width), Block(width))
        self.place = nn.Parameter(torch.randn(parts, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.leave, self.out = Block(width), nn.Linear(width, row)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, rows_BPD: Tensor, real_BP: Tensor) -> Tensor:
        """Rows ``[B, D]``; what stands in padding, where ``real_BP`` is False, does not matter."""
        held_BPD = rows_BPD * real_BP[..., None]
        states = self.enter(held_BPD) + self.place[: rows_BPD.shape[1]]
        first_BH = self.encoder(states, src_key_padding_mask=~real_BP)[:, 0]
        made_BD: Tensor = self.out(self.leave(first_BH)) + held_BPD.sum(1) / real_BP.sum(1, keepdim=True)
        return made_BD


def predicted_rows(net: nn.Module, scaler: Scaler, rows_VD: Tensor, spellings: Sequence[Sequence[int]]) -> Tensor:
    """Rows ``[N, D]`` of tokens that are spelled so; an empty spelling gives the mean row."""
    unit_VD = scaler.to_unit(rows_VD)
    known = [n for n, parts in enumerate(spellings) if parts]
    made = [unit_VD.new_zeros(0, unit_VD.shape[1])]
    for start in range(0, len(known), 512):
        made.append(net(*gathered(unit_VD, [spellings[n] for n in known[start : start + 512]])))
    places = torch.tensor(known, dtype=torch.long, device=unit_VD.device)
    unit_ND = unit_VD.new_zeros(len(spellings), unit_VD.shape[1]).index_copy(0, places, torch.cat(made))
    return scaler.back(unit_ND)


def held_out_split(splits: Splits, fallback: Sequence[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Tokens to learn from and tokens to measure, of those that split; of ``fallback`` where none does."""
    ids = sorted(splits) or sorted(fallback)
    random.Random(f"tokens:{seed}").shuffle(ids)
    count = int(share * len(ids))
    return ids[count:], ids[:count]


def draws(
    train: Sequence[int], splits: Splits, parts: int, sizes: tuple[int, int], batch: int, seed: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Batches of tokens and their spellings: ``sizes[0]`` of tokens as they are, then ``sizes[1]`` of split ones."""
    rng = random.Random(f"spellings:{seed}")
    for step in range(sum(sizes)):
        ids = [rng.choice(train) for _ in range(batch)]
        yield ids, [[i] if step < sizes[0] else spelling(i, splits, parts, rng) for i in ids]


def fit(
    net: nn.Module,
    unit_VD: Tensor,
    batches: Iterator[tuple[list[int], list[list[int]]]],
    steps: int,
    learning_rate: float,
) -> None:
    """Descend ``|net(spelling) - row|^2``, summed over dimensions, with a warm-up and a cosine to zero."""
    optimizer = adamw(net, learning_rate)
    for step, (ids, spellings) in enumerate(batches):
        rate = learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        error_BD = net(*gathered(unit_VD, spellings)) - unit_VD[ids]
        optimizer_step(optimizer, error_BD.square().sum(-1).mean())


def closeness(guess_ND: Tensor, true_N: Sequence[int], unit_VD: Tensor) -> dict[str, float]:
    """Mean cosine of guessed and true rows, and the median of how many rows are nearer than the true one."""
    near_NV = F.normalize(guess_ND, dim=-1) @ F.normalize(unit_VD, dim=-1).T
    own_N = near_NV.gather(1, torch.tensor(list(true_N), device=near_NV.device)[:, None])
    return {"cosine": float(own_N.mean()), "rank": float((near_NV > own_N).sum(-1).double().median())}


def held_out_figures(
    predict: Callable[[Tensor, Tensor], Tensor], unit_VD: Tensor, tokens: Sequence[int], splits: Splits, parts: int
) -> dict[str, dict[str, float]]:
    """Closeness on tokens not learnt from, of the network, of the mean of the parts and of the last part."""
    rng = random.Random("held out")
    tokens = tokens[:MEASURED]
    spellings = [spelling(i, splits, parts, rng) for i in tokens]
    rows_BPD, real_BP = gathered(unit_VD, spellings)
    means_BD = (rows_BPD * real_BP[..., None]).sum(1) / real_BP.sum(1, keepdim=True)
    with torch.inference_mode():
        guesses = {
            "hypernetwork": torch.cat(
                [predict(r, m) for r, m in zip(rows_BPD.split(256), real_BP.split(256), strict=True)]
            ),
            "fvt": means_BD,
            "last part": unit_VD[[s[-1] for s in spellings]],
        }
    return {name: closeness(guess, tokens, unit_VD) for name, guess in guesses.items()}

"""Synthetic interactions with known structure: items in clusters, users who walk through them, items nobody has seen.

The items of a cluster stand on a ring. A user likes two clusters, and goes one or two places on in the one he is in, or
back into the other. An item's feature tells its cluster and its place on the ring, as a text would. A tenth of the
items are cold: they are only ever the last item of a user, which is the test.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.toolkit.rows import Batch

CLUSTERS, RING, FEATURES, NOISE = 12, 25, 32, 0.1
STAYS, COLD_EVERY = 0.8, 10
USERS, LENGTH = 1000, 10
AT = 10


@dataclass(frozen=True)
class Interactions:
    """Features ``[I, F]`` and whether an item may be trained on, ``[I]``; item 0 is padding. Users ``[U, L]`` in order.

    A user's last item is the test, the one before it is for validation, the others are for training.
    """

    features_IF: Tensor
    warm_I: Tensor
    users_UL: Tensor

    def training_rows(self, size: int, steps: int, seed: int) -> Iterator[Batch]:
        """Beginnings of users, two items or more, padded with 0 on the right; the last item is what has to be told."""
        generator = torch.Generator().manual_seed(seed)
        known = self.users_UL.shape[1] - 2
        for _ in range(steps):
            picked = torch.randint(len(self.users_UL), (size,), generator=generator)
            count = torch.randint(2, known + 1, (size, 1), generator=generator)
            real = torch.arange(known) < count
            yield torch.where(real, self.users_UL[picked, :known], 0), real

    def held_out(self, back: int) -> tuple[Tensor, Tensor]:
        """Histories and targets: ``back`` 1 for the test, 2 for validation."""
        cut = self.users_UL.shape[1] - back
        return self.users_UL[:, :cut], self.users_UL[:, cut]


def _walk(rng: random.Random, cold: set[int]) -> list[int]:
    """One user: warm items but for the last, which is a cold one where the walk comes by one."""
    liked = rng.sample(range(CLUSTERS), 2)
    places = [rng.randrange(RING) for _ in liked]
    items, now = list[int](), 0
    while len(items) < LENGTH:
        now = now if rng.random() < STAYS else 1 - now
        steps = [1, 2] if rng.random() < 0.5 else [2, 1]
        choices = [1 + liked[now] * RING + (places[now] + step) % RING for step in steps]
        last = len(items) == LENGTH - 1
        item = next((c for c in choices if (c in cold) == last), choices[0] if last else None)
        assert item is not None, "two cold items side by side"
        places[now] = (item - 1) % RING
        items.append(item)
    return items


def synthetic(seed: int = 0) -> Interactions:
    """The same for the same seed."""
    rng, generator = random.Random(f"interactions:{seed}"), torch.Generator().manual_seed(seed)
    count = CLUSTERS * RING
    centre_CF = torch.randn(CLUSTERS, FEATURES, generator=generator)
    turn_C2F = torch.randn(CLUSTERS, 2, FEATURES, generator=generator)
    angle_R = 2 * math.pi * torch.arange(RING) / RING
    circle_R2 = torch.stack([angle_R.cos(), angle_R.sin()], 1)
    feature_IF = (centre_CF[:, None] + torch.einsum("rk,ckf->crf", circle_R2, turn_C2F)).reshape(count, FEATURES)
    feature_IF = feature_IF + NOISE * torch.randn(count, FEATURES, generator=generator)
    cold = set(range(COLD_EVERY, count + 1, COLD_EVERY))
    warm_I = torch.tensor([item > 0 and item not in cold for item in range(count + 1)])
    users_UL = torch.tensor([_walk(rng, cold) for _ in range(USERS)])
    return Interactions(torch.cat([torch.zeros(1, FEATURES), feature_IF]), warm_I, users_UL)


def ranks(scores_BI: Tensor, target_B: Tensor) -> Tensor:
    """How many items stand before each target, ``[B]``; equal ones do, and all do where the target has no score."""
    own_B1 = scores_BI.gather(1, target_B[:, None])
    before_B = (scores_BI >= own_B1).sum(1) - 1
    return torch.where(own_B1[:, 0].isinf(), scores_BI.shape[1], before_B)


def recall(rank_B: Tensor, at: int = AT) -> float:
    """Share of targets among the first ``at``."""
    return float((rank_B < at).double().mean())


def ndcg(rank_B: Tensor, at: int = AT) -> float:
    """Mean of 1 / log2(rank + 2) of the targets among the first ``at``, 0 for the others."""
    gain_B = 1 / torch.log2(rank_B.double() + 2)
    return float(torch.where(rank_B < at, gain_B, 0.0).mean())

"""Adaptive weighted rejection sampling: constrained sampling that asks the constraint about few tokens.

Tokens are drawn without replacement until one passes. The rule ``recursive`` then gives it a weight w such that
E[w 1{X = x}] = p(x) C(x): a rejected token of conditional probability q multiplies w by 1 - q; the accepted one
multiplies it by q, unless the next token in order passes as well. Particles accumulate the weights and are resampled.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from pydantic import Field

from harness.catalog import method
from harness.kinds.method import Check, Method
from harness.subjects.subject import KV_VIEWS, Subject
from spike_zoo.smc import SmcDecoder


def recursive_step(
    order: Sequence[int], p: Sequence[float], accepts: Callable[[int], bool], max_rejects: float = math.inf
) -> tuple[int, float]:
    """A token and its weight. ``order`` holds the tokens with mass, as drawn without replacement."""
    rest = torch.tensor([p[x] for x in order], dtype=torch.float64).flip(0).cumsum(0).flip(0).tolist()
    weight = rest[0]
    for place, token in enumerate(order):
        share, last = p[token] / rest[place], place == len(order) - 1
        full = place == max_rejects - 1
        if accepts(token):
            return token, weight if full or last or accepts(order[place + 1]) else weight * share
        if full or last:
            break
        weight *= 1 - share
    return token, 0.0


@method(
    id="awrs",
    kind="decoding",
    title="Adaptive weighted rejection sampling",
    paper="arXiv:2504.05410",
    guarantee="distribution",
    baseline="ar",
    identity={"choices": ()},
    details={"rule": "reference code: recursive", "constraint": "reconstruction: a set of strings"},
)
class Awrs(Method):
    """Samples continuations that are one of ``choices``."""

    changes = frozenset({"generate"})
    replaces = frozenset({"decoder"})
    choices: tuple[str, ...] = Field((), description="allowed texts; none allows all")
    particles: int = Field(1, ge=1, description="weighted continuations a prompt")
    resample_below: float = Field(0.5, ge=0, le=1, description="resample when ESS falls below this share")
    max_rejects: float = Field(math.inf, ge=2, description="rejections after which a particle dies")

    @contextmanager
    def apply(self, subject: Subject, artifact=None) -> Iterator[Subject]:  # type: ignore[no-untyped-def]
        """The subject with a constrained decoder."""
        subject.require(KV_VIEWS, self.card.id)
        rule = partial(recursive_step, max_rejects=self.max_rejects)
        decoder = SmcDecoder(self.choices, self.particles, self.resample_below, rule)
        yield replace(subject, decoder=decoder)

    def checks(self, subject: Subject) -> Iterable[Check]:
        """Proper weighting, by all orders of three tokens."""

        def proper() -> None:
            p, passes, mass = (0.5, 0.3, 0.2), (1, 2), [0.0, 0.0, 0.0]
            for order in itertools.permutations(range(3)):
                token, weight = recursive_step(order, p, passes.__contains__, self.max_rejects)
                mass[token] += weight * p[order[0]] * p[order[1]] / (1 - p[order[0]])
            assert math.dist(mass, (0.0, 0.3, 0.2)) < 1e-12, f"E[w 1(x)] is {mass}"

        return (Check("properly weighted", proper),)

"""When to draft and how far: both follow what was accepted of late and what a width costs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import ceil
from operator import mul

from harness.kinds.speculative.widths import WidthCosts, best_width

DECAY = 0.9
"""Weight of a step's outcome after each later one: the last ten steps or so decide."""
FIRST_REST, LONGEST_REST = 4, 256
"""Fewest and most plain steps before drafting is tried again."""
LOSS = 0.015
"""Part of all steps that drafting in vain may cost: a rest is as long as its trial was dear."""
TRIAL_STEPS = 2
MARGIN = 1.04
"""Drafting must emit so much more than it costs: building, verifying and committing a tree take time as well."""
WATCHED_DECAY = 0.95
"""Where drafts are watched during a rest a longer memory decides, as a rest in error costs more than a late one."""


@dataclass
class Pace:
    """Falls back to plain decoding while drafting costs more than it emits.

    Emitted tokens and costs (in plain steps) of recent drafting steps are kept as decayed sums. Where their ratio
    falls below :data:`MARGIN`, drafting rests for some plain steps and is then tried again; the more was lost since
    drafting last paid, the longer the rest.
    """

    emitted: float = MARGIN
    cost: float = 1.0
    resting: int = 0
    trials: int = 0
    lost: float = 0.0

    def rests(self) -> bool:
        """Whether the coming step is a plain one."""
        if self.resting:
            self.resting -= 1
            return True
        return False

    def record(self, emitted: int, cost: float) -> None:
        """Count a step that drafted: what it emitted, and what forward and drafting cost in plain steps."""
        self._add(emitted, cost, DECAY)
        self.lost = max(0.0, self.lost + cost - emitted)
        if self._loses():
            self.resting = min(max(FIRST_REST, ceil(self.lost / LOSS)), LONGEST_REST)
            # The next trial starts even, so that a few good steps are enough.
            self.emitted, self.cost, self.trials, self.lost = MARGIN, 1.0, 0, 0.0

    def _add(self, emitted: int, cost: float, decay: float) -> None:
        self.emitted = decay * self.emitted + emitted
        self.cost = decay * self.cost + cost
        self.trials += 1

    def _loses(self) -> bool:
        return self.trials >= TRIAL_STEPS and self.emitted < MARGIN * self.cost

    def snapshot(self) -> Pace:
        """The state as it is."""
        return replace(self)

    def restore(self, state: Pace) -> None:
        """Go back to a snapshot."""
        vars(self).update(vars(state))


class WatchedPace(Pace):
    """The pace of a free drafter: drafts are recorded during a rest too, by what they would have emitted.

    So a rest lasts until they would pay again, and trying costs nothing.
    """

    def rests(self) -> bool:
        """Whether the coming step is a plain one."""
        return self._loses()

    def record(self, emitted: int, cost: float) -> None:
        """Count a step that drafted, or would have."""
        self._add(emitted, cost, WATCHED_DECAY)


@dataclass
class Acceptance:
    """How often the token at each place of a chain was accepted after the one before was, of late."""

    prior: float = 0.5
    right: list[float] = field(default_factory=list)
    tried: list[float] = field(default_factory=list)

    def observe(self, drafted: int, accepted: int) -> None:
        """Count a chain of which ``accepted`` tokens were right."""
        for place in range(min(accepted + 1, drafted)):
            self.count(place, place < accepted)

    def count(self, place: int, right: bool) -> None:
        """Count the token at one place, once those before it were right."""
        while place >= len(self.right):
            self.right.append(0.0)
            self.tried.append(0.0)
        self.right[place] = DECAY * self.right[place] + right
        self.tried[place] = DECAY * self.tried[place] + 1

    def chance(self, place: int) -> float:
        """Chance of the token at ``place``, counted from 0, once it is reached; unseen places are as the last seen."""
        if not self.right:
            return self.prior
        seen = min(place, len(self.right) - 1)
        return (self.right[seen] + self.prior) / (self.tried[seen] + 1)

    def length(self, longest: int, costs: WidthCosts, price: float = 0.0) -> int:
        """The chain length with most expected tokens for its cost; ``price`` is that of drafting one token."""
        return self.levels([1] * longest, costs, price)

    def expected(self, length: int) -> float:
        """Tokens that a step with a chain of so many is expected to emit."""
        return 1.0 + sum(accumulate(map(self.chance, range(length)), mul), 0.0)

    def levels(self, sizes: Sequence[int], costs: WidthCosts, price: float = 0.0) -> int:
        """How many levels of a tree pay, ``sizes`` being their nodes; ``price`` is that of drafting one level."""
        values = list(accumulate(map(self.chance, range(len(sizes))), mul))
        return best_width(values, costs, price, sizes)

    def snapshot(self) -> Acceptance:
        """The state as it is."""
        return replace(self, right=list(self.right), tried=list(self.tried))

    def restore(self, state: Acceptance) -> None:
        """Go back to a snapshot."""
        self.right, self.tried = list(state.right), list(state.tried)


class DecayedRates:
    """Shares of successes of late, one for each place, starting from priors that weigh like ``weight`` outcomes."""

    def __init__(self, priors: Sequence[float], weight: float = 1.0, decay: float = DECAY) -> None:
        self.decay = decay
        self.right = [weight * prior for prior in priors]
        self.tried = [weight] * len(self.right)

    def count(self, place: int, right: bool) -> None:
        """Count one outcome."""
        self.right[place] = self.decay * self.right[place] + right
        self.tried[place] = self.decay * self.tried[place] + 1

    def shares(self) -> list[float]:
        """The share of each place."""
        return [right / tried for right, tried in zip(self.right, self.tried, strict=True)]

    def snapshot(self) -> tuple[list[float], list[float]]:
        """The state as it is."""
        return list(self.right), list(self.tried)

    def restore(self, state: tuple[list[float], list[float]]) -> None:
        """Go back to a snapshot."""
        self.right, self.tried = map(list, state)

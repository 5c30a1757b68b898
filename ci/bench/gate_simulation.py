"""How often the gate's rule is wrong: innocent and guilty gates under simulated noise, beside the rules of other tools.

Run `python ci/bench/gate_simulation.py [--gates N] [--comparisons N] [--cells NAME ...] [--seed N] [--json FILE]`.
A cell is a between-run level and a noise shape, "3%/drift". Prints Markdown tables; the noise is described in
`noise_models.py`, the rule as simulated in `simulated_rule.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ci.bench.bound_rates import bound_rates
from ci.bench.gate_tables import TITLES, write_tables
from ci.bench.noise_models import BLOCK_VISITS, SHAPES, Array, Pairs, Shape, Stream
from ci.bench.simulated_rule import INCONCLUSIVE, OTHER_RULES, PASS, Outcomes, Rule, judge_all
from harness.measure.noise import floor_of
from harness.stats.paired import signed_rank_bounds

RUN_SDS = (0.0, 0.01, 0.03, 0.05, 0.10)
CELLS = {f"{sd:.0%}/{name}": (sd, shape) for sd in RUN_SDS for name, shape in SHAPES.items()}
BUDGETS = {"60 s": 300, "10 s": 50}
"""Blocks of four visits that a budget buys of an operation of 50 ms."""
MARGIN, FALSE_ALARM, FALSE_PASS = 0.02, 0.01, 0.05
EFFECTS = (0.02, 0.03, 0.05, 0.10)
POWER_FLOORS = (0.005, 0.01)
GATES_AT_ONCE = 500
TWO_MARGIN, TWO_SDS, TWO_EFFECTS = 0.05, (0.005, 0.01), (0.0, 0.05, 0.10)
FLOOR_COMPARISONS, FLOOR_BLOCKS = 12, 15
"""A noise floor of two processes: twelve A/A comparisons of 3 s, which is 15 blocks of the operation."""

Row = dict[str, Any]


def upper_bound(errors: int, n: int) -> float:
    """One-sided 95 % upper bound of a binomial share (Clopper and Pearson)."""
    return 1.0 if errors == n else float(stats.beta.ppf(0.95, errors + 1, n - errors))


def generator(seed: int, *place: int) -> np.random.Generator:
    """A generator of its own for each place, so that a cell alone gives what it gives among others."""
    return np.random.Generator(np.random.SFC64([seed, *place]))


def chunks(gates: int) -> Iterator[tuple[int, int]]:
    """Numbers of gates that are simulated at once."""
    for number, start in enumerate(range(0, gates, GATES_AT_ONCE)):
        yield number, min(GATES_AT_ONCE, gates - start)


def new_pairs(
    shape: Shape, run_sd: float, blocks: int, shift_N: Array, comparisons: int, rng: np.random.Generator
) -> Pairs:
    """Blocks of a whole number of gates; ``shift_N`` has one value a comparison."""
    stream = Stream(shape, len(shift_N), blocks * BLOCK_VISITS, run_sd, rng)
    return Pairs(stream, np.arange(len(shift_N)) // comparisons, shift_N)


class Simulation:
    """The cells, and how many gates of how many comparisons each has."""

    def __init__(self, gates: int, comparisons: int, cells: list[str], seed: int) -> None:
        self.gates, self.comparisons, self.seed = gates, comparisons, seed
        self.cells = {name: CELLS[name] for name in cells or CELLS}
        self.places = {name: number for number, name in enumerate(CELLS)}

    def rule(self, blocks: int, margin: float = MARGIN, false_pass: float = FALSE_PASS) -> Rule:
        """The rule of one comparison among those of a gate."""
        return Rule(margin, FALSE_ALARM / self.comparisons, false_pass, blocks)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of the chosen cells."""
        return list({shape.name: shape for _, shape in self.cells.values()}.values())

    def innocent(self) -> Iterator[Row]:
        """Gates of equal sides without a floor, and what other rules say of their first ten visits a side."""
        for cell, (run_sd, shape) in self.cells.items():
            for number, (budget, blocks) in enumerate(BUDGETS.items()):
                found, others = self._innocent(run_sd, shape, blocks, (1, self.places[cell], number))
                yield {**self._summary(found), "cell": cell, "budget": budget, "others": others}

    def _innocent(
        self, run_sd: float, shape: Shape, blocks: int, place: tuple[int, ...], false_pass: float = FALSE_PASS
    ) -> tuple[Outcomes, Row]:
        parts: list[Outcomes] = []
        alarms: dict[str, list[Any]] = {name: [] for name in OTHER_RULES}
        for chunk, gates in chunks(self.gates):
            rng = generator(self.seed, *place, chunk)
            count = gates * self.comparisons
            pairs = new_pairs(shape, run_sd, blocks, np.zeros(count), self.comparisons, rng)
            parts.append(judge_all(pairs, np.zeros(count), self.rule(blocks, false_pass=false_pass)))
            assert pairs.opening is not None
            head_NV, base_NV = pairs.opening
            stored_NV = base_NV + np.sqrt(2) * run_sd * rng.standard_normal((count, 1))  # two jobs, two factors
            for name, rule in OTHER_RULES.items():
                alarms[name].append(rule(head_NV, stored_NV))
        others = {name: self._shares(np.concatenate(found)) for name, found in alarms.items()}
        return joined(parts), others

    def _shares(self, alarms_N: Any) -> Row:
        gates = alarms_N.reshape(-1, self.comparisons).any(axis=1)
        return {"comparison": float(alarms_N.mean()), "gate": float(gates.mean())}

    def _summary(self, found: Outcomes) -> Row:
        alarms = int(found.alarms_N.reshape(-1, self.comparisons).any(axis=1).sum())
        return {
            "gates": len(found.outcome_N) // self.comparisons,
            "alarms": alarms,
            "upper": upper_bound(alarms, len(found.outcome_N) // self.comparisons),
            "pass": float((found.outcome_N == PASS).reshape(-1, self.comparisons).all(axis=1).mean()),
            "inconclusive": found.share(INCONCLUSIVE),
            "blocks": float(found.blocks_N.mean()),
        }

    def never_pass(self) -> Iterator[Row]:
        """Innocent gates that may not pass, so that every look of the budget is one more chance of an alarm."""
        for shape in self.shapes:
            place = (2, list(SHAPES).index(shape.name))
            found, _ = self._innocent(0.0, shape, BUDGETS["60 s"], place, false_pass=0.0)
            yield {**self._summary(found), "shape": shape.name}

    def power(self) -> Iterator[Row]:
        """Guilty comparisons: each cell, budget and floor at each true slow-down, as many comparisons as gates."""
        for cell, (run_sd, shape) in self.cells.items():
            for number, (budget, blocks) in enumerate(BUDGETS.items()):
                for floor in POWER_FLOORS:
                    for effect in EFFECTS:
                        rng = generator(
                            self.seed, 3, self.places[cell], number, round(1e4 * floor), round(1e4 * effect)
                        )
                        shift_N = np.full(self.gates, np.log1p(effect))
                        pairs = new_pairs(shape, run_sd, blocks, shift_N, 1, rng)
                        found = judge_all(pairs, np.full(self.gates, floor), self.rule(blocks))
                        yield {
                            "cell": cell,
                            "shape": shape.name,
                            "budget": budget,
                            "floor": floor,
                            "effect": effect,
                            "regression": float(found.alarms_N.mean()),
                            "pass": found.share(PASS),
                            "blocks": float(found.blocks_N.mean()),
                            "n": self.gates,
                        }

    def bounds(self) -> Iterator[Row]:
        """Five bounds on the same blocks, of twice as many series as gates."""
        for shape in self.shapes:
            rng = generator(self.seed, 4, list(SHAPES).index(shape.name))
            yield from bound_rates(shape, 2 * self.gates, rng)

    def two_processes(self) -> Iterator[Row]:
        """Sides in processes of their own, each with a factor that its pairs cannot see."""
        for number, side_sd in enumerate(TWO_SDS):
            for effect in TWO_EFFECTS:
                parts: dict[str, list[Any]] = defaultdict(list)
                floors = []
                for chunk, gates in chunks(self.gates):
                    rng = generator(self.seed, 5, number, round(1e4 * effect), chunk)
                    floor_G = process_floors(gates, side_sd, rng)
                    floors.append(floor_G)
                    for name, alarms in self._two(floor_G, side_sd, effect, rng).items():
                        parts[name].append(alarms)
                judged_N = np.repeat(np.concatenate(floors) < TWO_MARGIN, self.comparisons)
                alarms = {name: np.concatenate(found) for name, found in parts.items()}
                for name in ("floor", "confirmed"):
                    alarms[name] = alarms[name][judged_N]
                yield {
                    "side_sd": side_sd,
                    "effect": effect,
                    "mean_floor": float(np.mean(np.concatenate(floors))),
                    "refused": float(1 - judged_N.mean()),
                    "gates": {name: len(found) // self.comparisons for name, found in alarms.items()},
                    "shares": {name: self._shares(found) for name, found in alarms.items()},
                }

    def _two(self, floor_G: Array, side_sd: float, effect: float, rng: np.random.Generator) -> dict[str, Any]:
        """Alarms without a floor, above the machine's floor, and those that fresh processes repeat."""
        blocks, shape = BUDGETS["60 s"], SHAPES["all"]
        count = len(floor_G) * self.comparisons
        floor_N = np.repeat(np.minimum(floor_G, TWO_MARGIN), self.comparisons)
        nothing_N = np.zeros(count)
        layouts = [(MARGIN, nothing_N), (TWO_MARGIN, nothing_N), (TWO_MARGIN, floor_N), (TWO_MARGIN, floor_N)]
        found = []
        for margin, floors in layouts:
            shift_N = np.log1p(effect) + side_sd * np.sqrt(2) * rng.standard_normal(count)
            pairs = new_pairs(shape, 0.0, blocks, shift_N, self.comparisons, rng)
            found.append(judge_all(pairs, floors, self.rule(blocks, margin=margin)).alarms_N)
        names = (f"no floor, margin {MARGIN:.0%}", f"no floor, margin {TWO_MARGIN:.0%}", "floor")
        return {**dict(zip(names, found, strict=False)), "confirmed": found[2] & found[3]}


def joined(parts: list[Outcomes]) -> Outcomes:
    """Chunks of comparisons as one."""
    return Outcomes(np.concatenate([p.outcome_N for p in parts]), np.concatenate([p.blocks_N for p in parts]))


def process_floors(machines: int, side_sd: float, rng: np.random.Generator) -> Array:
    """A noise floor for each machine from its own A/A comparisons, as `zoo doctor --noise` measures it."""
    count = machines * FLOOR_COMPARISONS
    shift_N = side_sd * np.sqrt(2) * rng.standard_normal(count)
    ratio_NB = new_pairs(SHAPES["all"], 0.0, FLOOR_BLOCKS, shift_N, FLOOR_COMPARISONS, rng).more(FLOOR_BLOCKS)
    estimates = [signed_rank_bounds(ratios, 0.05, 0.05).estimate for ratios in ratio_NB]
    return np.array([floor_of(found).value for found in np.reshape(estimates, (machines, -1)).tolist()])


def main(arguments: list[str] | None = None) -> dict[str, list[Row]]:
    """Simulate all parts, print their tables, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=10_000)
    parser.add_argument("--comparisons", type=int, default=20)
    parser.add_argument(
        "--cells", nargs="+", default=[], choices=CELLS, metavar="NAME", help='as "3%%/drift"; default: all'
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    chosen = parser.parse_args(arguments)
    simulation = Simulation(chosen.gates, chosen.comparisons, chosen.cells, chosen.seed)
    found: dict[str, list[Row]] = {}
    for part in TITLES:
        started = time.perf_counter()
        found[part] = list(getattr(simulation, part)())
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(write_tables(found))
    if chosen.json:
        chosen.json.write_text(json.dumps({"arguments": vars(chosen), "found": found}, indent=1, default=str))
    return found


if __name__ == "__main__":
    main()

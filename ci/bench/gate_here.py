"""Alarm and detection rates of the gate on the machine at hand: equal sides, and sides with planted extra work.

    python ci/bench/gate_here.py --json rates.json [--gates 50] [--planted 12]

Every gate is a real one: fresh sides, blocks of drawn order, looks until the case is clear or 10 s of timed blocks are
spent. The planted side runs a copy of the sources in whose hot loop each call is followed by the given share of its own
time of further multiplications; the two sides then need two processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from harness.gate.floors import measure_noise
from harness.measure.machine import busy, load_snapshot
from harness.measure.noise import ONE, TWO, NoiseFloor, read_noise
from harness.run.lockstep import BlockSeries, Place, StationProcess, fleet, log_ratio, pair_visits
from harness.run.suite import DecodeSpec
from harness.stats.sequential import REGRESSION, Design, run_looks

ROOT = Path(__file__).resolve().parents[2]
MARGIN, FALSE_ALARM, FALSE_PASS, BUDGET_S = 0.05, 0.01, 0.05, 10.0
LOAD = "import torch; torch.set_num_threads(1); a = torch.randn(384, 384)\nwhile True: a @ a"
SPIN = """
import time as _time
import torch as _torch
_operand = _torch.randn(16, 16)
def _planted(call):
    started = _time.perf_counter()
    result = call()
    end = _time.perf_counter() + {share} * (_time.perf_counter() - started)
    while _time.perf_counter() < end:
        _operand @ _operand
    return result
"""


@dataclass(frozen=True)
class Operation:
    """What a gate times."""

    name: str
    model: str
    method: str
    decode: str = ""
    workload: str = ""
    part: float = 1.0

    def open(self, station: StationProcess, side: str) -> int:
        """Open the operation as a side; returns its number of units."""
        if self.workload:
            answer = station.ask("open_workload", handle=side, method=self.method, workload=self.workload)
        else:
            spec = DecodeSpec.parse(self.decode).model_dump()
            answer = station.ask("open_decode", handle=side, method=self.method, decode=spec)
        return int(answer["units"])


OPERATIONS = (
    Operation("decode of 16 tokens, tiny model", "tiny-random", "ar", decode="chatx16n4"),
    Operation("kernel dualkv, forward", "tiny-random", "dualkv", workload="attention_p256_r32_n8"),
    Operation("decode of 4 tokens, 135M bfloat16", "smollm2-135m-q4", "ar", decode="chatx4n4", part=0.25),
)
"""``part``: a gate of the last takes its whole budget, so fewer are held."""


def hold(one: StationProcess, other: StationProcess, operation: Operation, floor: float, seed: int) -> dict[str, Any]:
    """One gate of one comparison."""
    units = operation.open(one, "candidate")
    operation.open(other, "baseline")
    series = BlockSeries(pair_visits(one, other), units, BUDGET_S, seed)
    design = Design(MARGIN, min(floor, 0.99 * MARGIN), FALSE_ALARM, FALSE_PASS)
    planned = series.plan()

    def more(n: int) -> dict[str, list[float]]:
        return {"time": [log_ratio(block, "total_s") for block in series.upto(n)]}

    found = run_looks(more, planned, {"time": design})["time"]
    return {
        "outcome": found.outcome,
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "blocks": found.bounds.n,
        "looks": found.looks,
        "seconds": series.spent_s,
        "log_ratios": [log_ratio(block, "total_s") for block in series.blocks],
    }


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Other programs that compute all the time."""
    others = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def planted_tree(share: float, folder: Path) -> Path:
    """A copy of the sources with extra work in the hot loops of decoding and of workloads."""
    if folder.is_dir():
        return folder
    for name in ("harness", "methods", "tasks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, call in (("harness/subjects/runner.py", "self.model("), ("harness/run/station.py", "call()")):
        path = folder / file
        text = path.read_text()
        if call == "call()":
            planted = text.replace("        for _ in range(calls):\n            call()", _loop())
        else:
            planted = text.replace("            out = self.model(", "            out = _planted(lambda: self.model(")
            planted = planted.replace(
                "zoo_step=ForwardStep(cache, block_TM, valid_BT, depth_M),\n            )", _end()
            )
        assert planted != text, f"nothing was planted in {file}"
        head, future, rest = planted.partition("from __future__ import annotations\n")
        path.write_text(head + future + SPIN.format(share=share) + rest)
    return folder


def _loop() -> str:
    return "        for _ in range(calls):\n            _planted(call)"


def _end() -> str:
    return "zoo_step=ForwardStep(cache, block_TM, valid_BT, depth_M),\n            ))"


def series_of_gates(
    operation: Operation, gates: int, noise: NoiseFloor, log: Path, neighbour_count: int = 0, source: str = ""
) -> dict[str, Any]:
    """Gates of equal sides in one process, or of a planted side against ours in two fresh processes each."""
    candidate, baseline = Place(operation.model, "cpu", source=source), Place(operation.model, "cpu")
    floor = noise.floors[TWO if source else ONE]["wall"].value
    held, before = [], load_snapshot()
    with neighbours(neighbour_count), fleet(log) as ships:
        for gate in range(gates):
            one, other = ships.at(candidate), ships.at(baseline)
            held.append(hold(one, other, operation, floor, seed=gate))
            if source:
                ships.close()
            print(
                f"  {held[-1]['outcome']:12} {held[-1]['ratio']:.4f} {held[-1]['blocks']}", file=sys.stderr, flush=True
            )
    return {"operation": operation.name, "floor": floor, "busy": busy(before, load_snapshot()), "gates": held}


def two_process_alarms(operation: Operation, gates: int, noise: NoiseFloor, log: Path) -> dict[str, Any]:
    """Equal sides in two fresh processes each; an alarm has to come twice, as in `zoo gate`."""
    place, floor = Place(operation.model, "cpu"), noise.floors[TWO]["wall"].value
    held = []
    for gate in range(gates):
        first = _fresh(place, operation, floor, log, gate)
        if first["outcome"] == REGRESSION:
            first["repeated"] = _fresh(place, operation, floor, log, gate + 1000)
        held.append(first)
        print(f"  {first['outcome']:12} {first['ratio']:.4f} {first['blocks']}", file=sys.stderr, flush=True)
    return {"operation": operation.name, "floor": floor, "gates": held}


def _fresh(place: Place, operation: Operation, floor: float, log: Path, seed: int) -> dict[str, Any]:
    with fleet(log) as ships:
        return hold(ships.at(place, "first"), ships.at(place, "second"), operation, floor, seed)


def share_line(count: int, n: int) -> str:
    """A share with its exact 95 % interval."""
    low, high = stats.binomtest(count, n).proportion_ci(0.95)
    return f"{count} of {n} [{low:.1%}, {high:.1%}]"


def row(label: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    held = found["gates"]
    alarms = [g for g in held if g["outcome"] == REGRESSION and g.get("repeated", g)["outcome"] == REGRESSION]
    counts = {o: sum(g["outcome"] == o for g in held) for o in ("pass", "inconclusive")}
    seconds = sum(g["seconds"] for g in held) / len(held)
    spread = 100 * math.sqrt(sum(math.log(g["ratio"]) ** 2 for g in held) / len(held))
    return (
        f"| {found['operation']} | {label} | {share_line(len(alarms), len(held))} | {counts['pass']} | "
        f"{counts['inconclusive']} | {spread:.2f}% | {seconds:.1f} s |"
    )


def main() -> None:
    """Measure, print the tables, keep everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--gates", type=int, default=50)
    parser.add_argument("--planted", type=int, default=8)
    parser.add_argument("--fresh", type=int, default=12, help="gates of equal sides in two fresh processes")
    options = parser.parse_args()
    started = time.time()
    found: dict[str, Any] = {}
    print("| operation | sides | alarms | passes | inconclusive | rms of log ratio | timed |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        log = Path(work) / "stations.log"
        with fleet(log) as ships:
            machine = ships.at(Place("tiny-random", "cpu")).hello["machine"]
        noise = read_noise(machine) or measure_noise(Place("tiny-random", "cpu"), log, lambda line: None)
        for operation in OPERATIONS:
            gates, fresh, planted = (round(n * operation.part) for n in (options.gates, options.fresh, options.planted))
            for label, count in (("equal, one process, idle", 0), ("equal, one process, a busy neighbour", 1)):
                found[f"{operation.name}: {label}"] = made = series_of_gates(operation, gates, noise, log, count)
                print(row(label, made), flush=True)
            label = "equal, two fresh processes"
            found[f"{operation.name}: {label}"] = made = two_process_alarms(operation, fresh, noise, log)
            print(row(label, made), flush=True)
            for share in (0.02, 0.03, 0.05, 0.10):
                tree = planted_tree(share, Path(work) / f"planted-{share}")
                label = f"planted {share:.0%}, two processes"
                made = series_of_gates(operation, planted, noise, log, source=str(tree))
                found[f"{operation.name}: {label}"] = made
                print(row(label, made), flush=True)
            options.json.write_text(json.dumps(found))
    floors = [f"{noise.floors[layout]['wall'].value:.2%} in {layout}" for layout in (ONE, TWO)]
    print(f"\n{time.time() - started:.0f} s on {noise.label}; floors {', '.join(floors)}; margin {MARGIN:.0%},")
    print(f"budget {BUDGET_S:.0f} s a gate; false alarms at most {FALSE_ALARM:.0%}, false passes {FALSE_PASS:.0%}")


if __name__ == "__main__":
    main()

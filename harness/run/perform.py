"""Performs one trial on a loaded model and returns its record. Nothing of a trial escapes as an exception."""

from __future__ import annotations

import datetime
import gc
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.catalog.spec import Stack, parse_stack
from harness.errors import CheckFailed, Refused, ZooError, unknown_name
from harness.evaluate.quality import EvalOptions, load_task, run_task, task_manager
from harness.kinds.artifacts import ArtifactStore
from harness.kinds.checking import check_cached
from harness.kinds.method import Measurement, Method, Workload
from harness.kinds.stack import applied
from harness.measure.decode import DecodeWork, greedy_texts, measure_decode
from harness.measure.machine import busy, load_snapshot, machine_key
from harness.measure.provenance import environment, git_state, versions
from harness.measure.workload import measure_workload
from harness.records.schema import AS_BASELINE, FAILED, OK, OUT_OF_MEMORY, REFUSED, MeasurementRow, TrialRecord
from harness.run.trial import COST, PROBE, QUALITY, WORKLOAD
from harness.subjects.fingerprint import weights_fingerprint
from harness.subjects.subject import GENERATE, Subject

Figures = tuple[list[Measurement], list[dict[str, Any]], float | None]


class AsBaseline(Exception):
    """The method changes nothing that this trial would see."""


class Bench:
    """A loaded model and the artifacts made on it; performs the trials of one group."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self.subject = subject
        self.store = ArtifactStore(seed)
        self._texts: dict[Any, dict[tuple[int, ...], list[int]]] = {}
        self.weights = weights_fingerprint(subject.model)
        gc.collect()
        gc.freeze()  # libraries and weights stay: the collection before each timed block need not walk over them

    def opened(self, stack: Stack) -> Callable[[], AbstractContextManager[Subject]]:
        """A function that opens the stack on the bare subject; methods are built once."""
        methods = stack.build()
        return lambda: applied(methods, self.subject, self.store.obtain)

    def texts(self, stack: Stack, work: DecodeWork) -> dict[tuple[int, ...], list[int]]:
        """What a stack writes after the prompts; kept, as all methods of a group are forced to the same texts."""
        key = str(stack), work.new_tokens, work.batch, tuple(map(tuple, work.prompts))
        if key not in self._texts:
            self._texts[key] = greedy_texts(self.opened(stack), work)
        return self._texts[key]

    def perform(self, trial: dict[str, Any], work: Path) -> TrialRecord:
        """Run a trial; failures become its status and reason."""
        record = TrialRecord(trial=trial, status=OK, started=datetime.datetime.now(datetime.UTC).isoformat())
        before, started = load_snapshot(), time.perf_counter()
        self.store.metered = bool(trial["options"].get("energy"))
        try:
            figures, samples, cpu_share = PERFORMERS[trial["kind"]](self, trial, work)
            record.samples = samples
            record.measurements = [_row(m, trial) for m in figures]
            _validate(record.measurements)
        except AsBaseline as reason:
            record.status, record.reason, cpu_share = AS_BASELINE, str(reason), None
        except Exception as error:  # noqa: BLE001 - whatever a method does must not harm the other trials
            record.status, record.reason = _status(error), _one_line(error)
            record.measurements, record.samples, cpu_share = [], [], None
            if not isinstance(error, ZooError):
                import traceback

                traceback.print_exc()
        record.seconds = time.perf_counter() - started
        record.environment = _environment(busy(before, load_snapshot()), cpu_share)
        record.environment["weights"] = self.weights
        return record


def _status(error: BaseException) -> str:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator: can't allocate" in str(
        error
    ):
        return OUT_OF_MEMORY
    return REFUSED if isinstance(error, Refused) else FAILED


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, ZooError) else f"{type(error).__name__}: {text}"


def _row(measurement: Measurement, trial: dict[str, Any]) -> MeasurementRow:
    return MeasurementRow(**asdict(measurement), baseline=trial["baseline"])


def _validate(rows: Iterable[MeasurementRow]) -> None:
    """A stored figure is finite, or it is not stored; an impossible one fails the trial."""
    for row in rows:
        if row.value is not None and not abs(row.value) < float("inf"):
            raise CheckFailed(f"{row.metric}{f' ({row.phase})' if row.phase else ''} came out as {row.value}")


@cache
def _code_state() -> dict[str, Any]:
    """Versions and git state, read once: what a process has imported does not change with the files."""
    state = git_state(Path(__file__).parent)
    return {"versions": versions(), "git": asdict(state) if state else None}


def _environment(busy_line: str | None, cpu_share: float | None) -> dict[str, Any]:
    key = machine_key()
    return {
        "machine": key.digest,
        "machine_label": key.label,
        **_code_state(),
        "variables": environment(),
        "busy": busy_line,
        "cpu_share": cpu_share,
    }


def _changes(stack: Stack) -> set[str]:
    changed: set[str] = set()
    for method in stack.build():
        changed |= method.changes
    return changed


def _is_own_baseline(stack: Stack) -> bool:
    return str(stack) == str(stack.baseline)


def perform_quality(bench: Bench, trial: dict[str, Any], work: Path) -> Figures:
    """One lm-eval task."""
    stack = parse_stack(trial["method"])
    given = trial["options"]
    options = EvalOptions(**{**given, "include_path": tuple(given["include_path"])}, seed=trial["seed"])
    _, needs = load_task(trial["target"], options)
    if not _is_own_baseline(stack) and not needs & _changes(stack):
        raise AsBaseline(f"{stack} changes nothing that {trial['target']} asks for ({', '.join(sorted(needs))})")
    with bench.opened(stack)() as subject:
        for need in needs:
            subject.require(need, f"task {trial['target']}")
        result = run_task(subject, trial["target"], options, work / "lm-eval")
    return result.measurements, documents(result.samples), None


def documents(samples: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each document's value of each metric, so that methods can be compared document by document.

    Each task of a group counts its documents from 0, so units of the second one begin at ten million, and so on.
    """
    rows = []
    for place, task in enumerate(sorted(samples)):
        for sample in samples[task]:
            unit = place * 10_000_000 + int(sample["doc_id"])
            for name in sample.get("metrics", ()):
                if (value := document_value(name, sample.get(name))) is not None:
                    rows.append({"side": "document", "unit": unit, "name": name, "value": value})
    return rows


def document_value(name: str, value: Any) -> float | None:
    """A document's figure; bits per byte from its pair of log-likelihood and bytes."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if name == "bits_per_byte" and isinstance(value, (tuple, list)) and len(value) == 2:
        return -float(value[0]) / (float(value[1]) * math.log(2))
    return None


def refuse_red(stack: Stack) -> None:
    """No cost figure for a method whose invariants fail."""
    for spec in stack.specs:
        red = [r for r in check_cached(spec) if not r.passed]
        if red:
            raise CheckFailed(
                f"{spec.id} fails {red[0].name}: {red[0].reason}; no cost is measured (zoo check {spec.id})"
            )


def decode_work(subject: Subject, spec: dict[str, Any]) -> DecodeWork:
    """The prompts of a decode workload, a table of :class:`harness.run.suite.DecodeSpec`, in the subject's ids."""
    import tasks.prompts as prompt_sets

    tokenizer = subject.text_tokenizer()
    count, length = spec["count"], spec["prompt_tokens"]
    return DecodeWork(
        prompts=prompt_sets.prompt_ids(spec["prompts"], count, tokenizer, length),
        warm_up=prompt_sets.prompt_ids(spec["prompts"], spec["warm_up"], tokenizer, length, first=count),
        new_tokens=spec["new_tokens"],
        batch=spec["batch"],
    )


def perform_cost(bench: Bench, trial: dict[str, Any], work: Path) -> Figures:
    """A decode workload against the baseline."""
    stack = parse_stack(trial["method"])
    if not _is_own_baseline(stack) and GENERATE not in _changes(stack):
        raise AsBaseline(f"{stack} does not change generation")
    refuse_red(stack)
    decode = decode_work(bench.subject, trial["options"]["decode"])
    baseline = None if _is_own_baseline(stack) else bench.opened(stack.baseline)
    if trial["options"]["decode"]["forced"]:
        decode = replace(decode, texts=bench.texts(stack.baseline, decode))
    result = measure_decode(bench.opened(stack), baseline, decode, trial["options"]["budget_s"])
    if trial["options"]["energy"]:
        from harness.measure.energy_windows import decode_energy

        result.measurements += decode_energy(bench.opened(stack), decode, trial["options"]["energy"]["window_s"])
    return result.measurements, result.samples, result.cpu_share


def _single(stack: Stack) -> Method:
    if len(stack.specs) != 1:
        raise Refused(f"workloads and probes belong to one method; {stack} is a stack")
    return stack.build()[0]  # type: ignore[no-any-return]


def find_workload(subject: Subject, method: str, name: str) -> Workload:
    """One workload of a method; an unknown name is a :class:`UsageError` with the nearest."""
    stack = parse_stack(method)
    refuse_red(stack)
    found = {w.name: w for w in _single(stack).workloads(subject)}
    if name not in found:
        raise unknown_name(f"workload of {stack}", name, found)
    return found[name]


def perform_workload(bench: Bench, trial: dict[str, Any], work: Path) -> Figures:
    """All workloads of a method, each against its reference or the baseline method's."""
    stack = parse_stack(trial["method"])
    method = _single(stack)
    refuse_red(stack)
    own = _is_own_baseline(stack)
    others = {} if own else {w.name: w for w in _single(stack.baseline).workloads(bench.subject)}
    figures: list[Measurement] = []
    samples: list[dict[str, Any]] = []
    shares: list[float] = []
    for workload in method.workloads(bench.subject):
        measured = measure_workload(
            workload, others.get(workload.name), bench.subject.device, trial["options"]["budget_s"]
        )
        figures += measured[0]
        samples += measured[1]
        shares.append(measured[2])
        if trial["options"]["energy"] and stack.kind == "objective":
            from harness.measure.energy_windows import training_energy

            window_s, tokens = trial["options"]["energy"]["window_s"], workload.units["tokens"]
            figures += training_energy(workload.name, workload.make(), tokens, str(bench.subject.device), window_s)
    if not figures:
        raise AsBaseline(f"{stack} has no workloads")
    return figures, samples, min(shares)


def perform_probe(bench: Bench, trial: dict[str, Any], work: Path) -> Figures:
    """All probes of a method, on the subject before it and on the one it yields, and what its preparation recorded."""
    stack = parse_stack(trial["method"])
    method = _single(stack)
    samples: list[dict[str, Any]] = []
    figures = [figure for probe in method.prior_probes(bench.store.seed) for figure in probe.measure(bench.subject)]
    with bench.opened(stack)() as subject:
        figures += [figure for probe in method.probes() for figure in probe.measure(subject)]
    if method.trains:
        artifact = bench.store.obtain(method, bench.subject)
        figures += bench.store.costs[method.card.id]
        figures += method.training_measurements(artifact)
        samples += map(dict, method.training_samples(artifact))
    if not figures:
        raise AsBaseline(f"{stack} has no probes")
    return figures, samples, None


PERFORMERS: dict[str, Callable[[Bench, dict[str, Any], Path], Figures]] = {
    QUALITY: perform_quality,
    COST: perform_cost,
    WORKLOAD: perform_workload,
    PROBE: perform_probe,
}


def validate(trials: list[dict[str, Any]]) -> None:
    """Find every unknown parameter and task before anything runs."""
    for text in dict.fromkeys(t["method"] for t in trials):
        parse_stack(text).build()
    wanted = [t for t in trials if t["kind"] == QUALITY]
    if wanted:
        folders = tuple(wanted[0]["options"]["include_path"])
        task_manager(folders, list(dict.fromkeys(t["target"] for t in wanted)))

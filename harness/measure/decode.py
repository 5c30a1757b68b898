"""The cost of generation: a candidate and its baseline take turns on the same prompts, from the same state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import Refused
from harness.kinds.method import Measurement
from harness.measure.drafting import divergence, drafting
from harness.measure.loops import ends_in_loop
from harness.measure.memory import peak_memory
from harness.measure.pairs import BASELINE, CANDIDATE, ORDER, SELF_ORDER, Block, PairRun, Side, run_pairs, timed_sides
from harness.measure.utilisation import ttft_s, utilisation
from harness.stats.intervals import Estimate
from harness.stats.tails import quantile, tail_supported
from harness.subjects.requests import GenerateRequest, Generation
from harness.subjects.subject import Subject

ROW_COUNTS = (
    "kv_kept_fraction",
    "kv_read_fraction",
    "kv_scored_fraction",
    "kv_bytes_held",
    "kv_bytes_allocated",
    "tokens_per_segment",
    "kv_slots_per_token",
    "active_parameters_per_token",
    "large_model_share",
)
"""Counts of a continuation that are figures as they are: their mean over prompts, where every prompt has them."""
SPEEDUPS = {
    "speedup_total": "total_s",
    "speedup_decode": "decode_s",
    "speedup_ttft": "ttft_s",
    "speedup_cpu": "cpu_s",
}
"""The clock behind each speed-up."""
WITHOUT_LOOPS = {f"{name}_no_loops": SPEEDUPS[name] for name in ("speedup_total", "speedup_decode")}
"""Speed-ups over the units in which neither side's text ends in a loop."""
Opened = Callable[[], AbstractContextManager[Subject]]


@dataclass(frozen=True)
class DecodeWork:
    """The prompts of a decode workload, those for warming up (others), and the fixed number of new tokens.

    ``texts`` may hold the continuation of each prompt that both sides emit, whatever they would pick: rounding makes
    greedy texts part early, and then the sides decode different texts.
    """

    prompts: Sequence[Sequence[int]]
    warm_up: Sequence[Sequence[int]]
    new_tokens: int
    batch: int = 1
    texts: Mapping[tuple[int, ...], Sequence[int]] = field(default_factory=dict)

    def batches(self) -> list[list[Sequence[int]]]:
        """Units of work: consecutive prompts, ``batch`` at a time."""
        return [list(self.prompts[i : i + self.batch]) for i in range(0, len(self.prompts), self.batch)]

    def request(self, prompts: Sequence[Sequence[int]]) -> GenerateRequest:
        """Greedy, of fixed length, and forced where the texts are known."""
        texts = [self.texts.get(tuple(prompt)) for prompt in prompts]
        forced = None if None in texts else texts
        return GenerateRequest(prompts=prompts, max_new_tokens=self.new_tokens, ignore_eos=True, forced=forced)  # type: ignore[arg-type]


@dataclass
class DecodeResult:
    """Figures of the candidate, with ratios to the baseline, and the raw values behind them."""

    measurements: list[Measurement] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    cpu_share: float = 1.0


def greedy_texts(opened: Opened, work: DecodeWork) -> dict[tuple[int, ...], list[int]]:
    """What a side writes after each prompt."""
    with opened() as subject:
        rows = [row for batch in work.batches() for row in subject.generate(work.request(batch))]
    return {tuple(prompt): row.tokens for prompt, row in zip(work.prompts, rows, strict=True)}


def make_side(opened: Opened, work: DecodeWork) -> Side:
    """A side of the pair. It is warmed up once; each block then starts from the state after the warm-up.

    Refuses a batch for a decoder that takes rows in turn: its time would be that of so many requests.
    """
    with opened() as subject:
        if work.batch > 1 and getattr(subject.decoder, "rows_in_turn", False):
            raise Refused(
                f"{subject.full_name} decodes the rows of a batch one after the other, so a batch of {work.batch} has "
                f"no speed of its own; leave b{work.batch} out of the workload"
            )
        for prompt in work.warm_up:
            subject.generate(work.request([prompt] * work.batch))
        state = subject.decoder.snapshot()
    units = work.batches()

    @contextmanager
    def side(unit: int) -> Iterator[Callable[[], list[Generation]]]:
        with opened() as subject:
            subject.decoder.restore(state)
            yield lambda: _of_full_length(subject.generate(work.request(units[unit])), work.new_tokens)

    return side


def _of_full_length(rows: list[Generation], new_tokens: int) -> list[Generation]:
    """Both sides must emit equally many tokens, or their times cannot be compared."""
    short = [len(row.tokens) for row in rows if len(row.tokens) != new_tokens]
    if short:
        raise Refused(f"a request of {new_tokens} tokens ended after {short[0]}: no speed-up can be read from it")
    return rows


def measure_decode(candidate: Opened, baseline: Opened | None, work: DecodeWork, budget_s: float) -> DecodeResult:
    """Run the pairs and read every figure of the decode phase from them.

    Without a ``baseline`` the candidate is its own: its ratio to itself shows what this machine's noise makes of 1.
    """
    side = make_side(candidate, work)
    other, order = (side, SELF_ORDER) if baseline is None else (make_side(baseline, work), ORDER)
    run = run_pairs(timed_sides(side, other), range(len(work.batches())), budget_s, order=order)
    result = DecodeResult(cpu_share=run.cpu_share)
    whole = _completed(run, side, other, work)
    result.measurements += [*speedups(run, SPEEDUPS), *speedups(without_loops(run), WITHOUT_LOOPS)]
    result.measurements += [*latencies(run.of("candidate")), *counts(whole)]
    result.measurements += drafting(first_visits(whole, CANDIDATE), [b.result for b in run.of(CANDIDATE)])
    if not work.texts:
        result.measurements += divergence(first_visits(whole, CANDIDATE), first_visits(whole, BASELINE))
    result.measurements += [*memory(candidate, work), *utilisation(candidate, run)]
    result.samples = raw_samples(run)
    return result


def _completed(run: PairRun, candidate: Side, baseline: Side, work: DecodeWork) -> PairRun:
    """The blocks, with one visit a side of each unit that the budget left out: counts must not depend on the clock."""
    done = {block.unit for block in run.blocks}
    visits = timed_sides(candidate, baseline)
    missing = [visit(unit) for unit in range(len(work.batches())) if unit not in done for visit in visits.values()]
    return PairRun([*run.blocks, *missing])


def _decode_s(block: Block) -> float:
    """From the batch's first token to its last."""
    return _total_s(block) - min(float(row.ttft_s) for row in block.result)


def _total_s(block: Block) -> float:
    """From the request to the last token of the slowest row."""
    return max(float(row.stamps_s[-1]) for row in block.result)


def _ratio(name: str, estimate: Estimate) -> Measurement:
    return Measurement(name, estimate.value, estimate.low, estimate.high, estimate.n, source="clock")


def speedups(run: PairRun, clocks: Mapping[str, str]) -> list[Measurement]:
    """Ratios to the baseline with their intervals over units; nothing of no units."""
    return [_ratio(name, run.speedup(CLOCKS[clock])) for name, clock in clocks.items() if run.blocks]


def looping(rows: Sequence[Generation]) -> int:
    """How many texts end in a loop."""
    return sum(ends_in_loop(row.tokens) for row in rows)


def without_loops(run: PairRun) -> PairRun:
    """The blocks of the units in which no text of either side ends in a loop."""
    looped = {block.unit for block in run.blocks if looping(block.result)}
    return PairRun([block for block in run.blocks if block.unit not in looped])


def latencies(blocks: Sequence[Block]) -> list[Measurement]:
    """Percentiles of TTFT, TPOT and gaps in milliseconds, and throughput; no tail that the sample cannot carry."""
    rows = [row for block in blocks for row in block.result]
    gaps = [b - a for row in rows for a, b in itertools.pairwise(_step_stamps(row))]
    series = {
        "ttft": [row.ttft_s for row in rows],
        "tpot": [row.tpot_s for row in rows if row.tpot_s is not None],
        "gap": gaps,
    }
    found = []
    for name, values in series.items():
        for p in (0.5, 0.9, 0.99) if name == "gap" else (0.5, 0.9):
            if values and (p <= 0.9 or tail_supported(len(values), p)):
                metric = f"{name}_p{round(p * 100)}"
                found.append(Measurement(metric, 1e3 * quantile(values, p), n=len(values), source="clock"))
    prompt = sum(row.prompt_tokens for block in blocks for row in block.result)
    after = sum(len(row.tokens) - 1 for row in rows)
    found.append(Measurement("prefill_tokens_per_s", prompt / sum(map(ttft_s, blocks)), n=len(blocks), source="clock"))
    found.append(Measurement("decode_tokens_per_s", after / sum(map(_decode_s, blocks)), n=len(blocks), source="clock"))
    return found


def _step_stamps(row: Generation) -> list[float]:
    """One stamp a step: tokens of one accepted run share theirs."""
    return list(dict.fromkeys(row.stamps_s))


def counts(run: PairRun) -> list[Measurement]:
    """What has no noise; equal over repeated visits."""
    rows = first_visits(run, "candidate")
    base = first_visits(run, "baseline")
    saved = 1 - sum(r.counts["forwards"] for r in rows) / sum(r.counts["forwards"] for r in base)
    found = {**row_counts(rows), "forwards_saved": saved}
    return [Measurement(name, value, n=len(rows), source="count") for name, value in found.items()]


def row_counts(rows: Sequence[Generation]) -> dict[str, float]:
    """Counts of some continuations, each under its metric's name."""
    steps = sum(len(row.steps) - 1 for row in rows)
    after = sum(len(row.tokens) - 1 for row in rows)
    forwarded = sum(row.counts["tokens_forwarded"] - row.prompt_tokens for row in rows)
    common = set.intersection(*(set(row.counts) for row in rows))
    cache = {name: sum(row.counts[name] for row in rows) / len(rows) for name in ROW_COUNTS if name in common}
    return {
        "mean_accepted_tokens": after / max(1, steps),
        **cache,
        "tokens_forwarded_per_token": forwarded / after,
        "loop_share": looping(rows) / len(rows),
    }


def first_visits(run: PairRun, side: str) -> list[Generation]:
    """The side's continuations of all units in order, each from its first visit."""
    seen: dict[int, list[Generation]] = {}
    for block in run.of(side):
        seen.setdefault(block.unit, block.result)
    return [row for rows in seen.values() for row in rows]


def memory(opened: Opened, work: DecodeWork) -> list[Measurement]:
    """Peak memory of one request, watched in a visit of its own so that timed blocks are not disturbed."""
    with opened() as subject:
        request = work.request(work.batches()[0])
        with peak_memory(subject.device) as peak:
            subject.generate(request)
    held = peak.rss_peak if peak.device_peak is None else peak.device_peak
    return [Measurement("peak_memory_bytes", float(held), n=1, source="count")]


CLOCKS: dict[str, Callable[[Block], float]] = {
    "total_s": _total_s,
    "ttft_s": ttft_s,
    "decode_s": _decode_s,
    "cpu_s": lambda block: block.cpu_s,
}


def visit_values(block: Block) -> dict[str, float]:
    """A visit's raw values: its clocks in seconds, its target forwards, and how many of its texts end in a loop."""
    clocks = {name: clock(block) for name, clock in CLOCKS.items()}
    forwards = sum(float(row.counts["forwards"]) for row in block.result)
    return {**clocks, "forwards": forwards, "loops": float(looping(block.result))}


def raw_samples(run: PairRun) -> list[dict[str, Any]]:
    """Every block's raw values, so that each figure can be computed again."""
    return [
        {"side": block.side, "unit": block.unit, "name": name, "value": value}
        for block in run.blocks
        for name, value in visit_values(block).items()
    ]

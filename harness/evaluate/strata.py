"""Where a task is hard, by the word asked about and by what a tokenizer makes of it: lm-eval's samples in strata.

A document names the characters that it is about (``span``, and ``letters`` inside it). Its covariates are every number
that it holds itself, and from the tokens of its context, in context:

- ``tokens``: tokens that touch the span; ``characters_per_token``: characters of the span over these
- ``letter_token``: mean characters, inside the span, of the tokens that hold its ``letters``
- ``alignment``: share of its ``letters`` that are alone in their token, blanks and punctuation left out

Covariates go together (a longer word has more tokens), so Pearson's r of each stands beside its coefficient in one
logistic regression on all of them, standardised, with a ridge of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import Refused, UsageError
from harness.subjects.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

METRICS = ("acc", "last_int", "exact_match")
"""0/1 metrics, the first that a task has is looked at."""
NOT_COVARIATES = ("answer", "pair")
MOST_VALUES, PARTS = 7, 4
"""A covariate with more different values than this is cut into so many parts of even size."""
Samples = Sequence[Mapping[str, Any]]


def token_spans(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """First byte of each token of the text and the one after its last; refused where they do not cover the text."""
    ends = np.cumsum([0, *(len(tokenizer.token_bytes(i) or b"") for i in tokenizer.encode(text))]).tolist()
    if ends[-1] != len(text.encode()):
        raise Refused(
            f"tokens of {tokenizer.name} do not cover the text byte for byte, so no word can be found in them"
        )
    return list(pairwise(ends))


def covariates(tokenizer: Tokenizer, doc: Mapping[str, Any]) -> dict[str, float]:
    """All covariates of one document; one without a ``span`` has its own numbers alone."""
    found = {
        name: float(value)
        for name, value in doc.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in NOT_COVARIATES
    }
    if "span" not in doc:
        return found
    context = doc["context"]
    start, end = (len(context[:place].encode()) for place in doc["span"])
    raw = context.encode()
    touching = [(a, b) for a, b in token_spans(tokenizer, context) if a < end and b > start]
    inside = {(a, b): raw[max(a, start) : min(b, end)].decode("utf-8", "replace") for a, b in touching}
    found |= {"tokens": float(len(touching)), "characters_per_token": (doc["span"][1] - doc["span"][0]) / len(touching)}
    places = [len(context[:place].encode()) for place in doc.get("letters", ())]
    holders = [next(span for span in touching if span[0] <= place < span[1]) for place in places]
    if holders:
        alone = [sum(c.isalnum() for c in inside[span]) == 1 for span in holders]
        found["letter_token"] = sum(len(inside[span]) for span in holders) / len(holders)
        found["alignment"] = sum(alone) / len(holders)
    return found


@dataclass(frozen=True)
class Stratum:
    """The documents whose covariate lies in ``[low, high]``: how many, the metric's mean, its 95 % Wilson interval."""

    covariate: str
    low: float
    high: float
    n: int
    value: float
    value_low: float
    value_high: float


@dataclass(frozen=True)
class Influence:
    """Pearson's r of a covariate with the metric, and its log odds per standard deviation, others held, with a
    95 % interval."""

    covariate: str
    r: float
    log_odds: float
    low: float
    high: float


@dataclass(frozen=True)
class Strata:
    """One task: the metric, its mean, the share of the most frequent right answer, and what goes with the metric."""

    task: str
    metric: str
    n: int
    value: float
    majority: float
    influences: list[Influence]
    strata: list[Stratum]


def cuts(values: Floats) -> list[tuple[float, float]]:
    """Closed intervals that part a covariate: its values where they are few, else parts of even size by rank."""
    different = np.unique(values)
    if len(different) <= MOST_VALUES:
        return [(float(v), float(v)) for v in different]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, PARTS + 1), method="lower"))
    parts = []
    for low, high, last in zip(edges[:-1], edges[1:], edges[1:] == edges[-1], strict=True):
        inside = values[(values >= low) & ((values <= high) if last else (values < high))]
        parts.append((float(inside.min()), float(inside.max())))
    return parts


def logistic(columns_ND: Floats, right_N: Floats) -> tuple[Floats, Floats]:
    """Coefficients of a logistic regression on standardised columns and their standard errors; ridge 1 but for the
    constant."""
    design = np.column_stack([np.ones(len(columns_ND)), columns_ND])
    ridge = np.diag([1e-9, *np.ones(columns_ND.shape[1])])
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + ridge
        step = np.linalg.solve(curvature, design.T @ (right_N - p) - ridge @ beta)
        beta = beta + step
        if float(np.abs(step).max()) < 1e-9:
            break
    return beta[1:], np.sqrt(np.diag(np.linalg.inv(curvature)))[1:]


def stratify(task: str, samples: Samples, tokenizer: Tokenizer) -> Strata:
    """The analysis of one task's samples. :class:`UsageError` where no 0/1 metric is logged."""
    from scipy import stats

    metric = next((m for m in METRICS if m in samples[0]), None)
    if metric is None:
        raise UsageError(f"the samples of {task} have none of {', '.join(METRICS)}, so there is no share to stratify")
    right = np.array([float(s[metric]) for s in samples])
    rows = [covariates(tokenizer, s["doc"]) for s in samples]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    table = {name: np.array([row[name] for row in rows]) for name in names}
    table = {name: column for name, column in table.items() if len(np.unique(column)) > 1}
    strata = []
    for name, column in table.items():
        for low, high in cuts(column):
            chosen = right[(column >= low) & (column <= high)]
            interval = stats.binomtest(int(chosen.sum()), len(chosen)).proportion_ci(method="wilson")
            strata.append(
                Stratum(name, low, high, len(chosen), float(chosen.mean()), float(interval.low), float(interval.high))
            )
    gold = [str(s["doc"].get("target", s["target"])) for s in samples]
    majority = max(map(gold.count, set(gold))) / len(gold)
    return Strata(task, metric, len(right), float(right.mean()), majority, influences(table, right), strata)


def influences(table: Mapping[str, Floats], right: Floats) -> list[Influence]:
    """What each covariate has to do with the metric; nothing where the metric is the same everywhere."""
    if not table or len(np.unique(right)) < 2:
        return []
    columns = np.column_stack([(c - c.mean()) / c.std() for c in table.values()])
    beta, error = logistic(columns, right)
    return [
        Influence(name, float(np.corrcoef(c, right)[0, 1]), float(b), float(b - 1.96 * e), float(b + 1.96 * e))
        for name, c, b, e in zip(table, columns.T, beta, error, strict=True)
    ]


def read_samples(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Samples by task from lm-eval's files ``samples_TASK_DATE.jsonl``: one, or the newest of each task in a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl"), key=lambda p: p.stem.rpartition("_")[2])
    if not files:
        raise UsageError(f"{str(path)!r} holds no samples_*.jsonl; run lm-eval with --log_samples --output_path")
    found = {}
    for file in files:
        task = file.stem.removeprefix("samples_").rpartition("_")[0] or file.stem
        try:
            found[task] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(file)!r} is no file of lm-eval's samples: {error}") from error
    return {task: rows for task, rows in found.items() if rows}

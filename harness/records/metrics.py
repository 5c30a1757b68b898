"""The dictionary of metrics, read from its data file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True)
class Metric:
    """What a figure means: its unit, whether more is better (``higher``, ``lower``, ``none``) and its definition."""

    name: str
    unit: str
    direction: str
    definition: str


@lru_cache(maxsize=1)
def metrics() -> dict[str, Metric]:
    """All known metrics by name."""
    import yaml

    text = files("harness.records").joinpath("metrics.yaml").read_text(encoding="utf-8")
    return {name: Metric(name, **entry) for name, entry in yaml.safe_load(text).items()}


def metric(name: str) -> Metric:
    """One metric; lm-eval's metrics that the dictionary does not know have no unit and no direction."""
    return metrics().get(name) or Metric(name, "", "none", "as lm-eval defines it")


def dictionary_page() -> str:
    """The dictionary as Markdown."""
    rows = [
        f"| `{m.name}` | {m.unit} | {m.direction} | {m.definition.replace('|', chr(92) + '|')} |"
        for m in metrics().values()
    ]
    head = "# Metrics\n\nMade from `harness/records/metrics.yaml`.\n\n"
    head += "| metric | unit | better | definition |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"

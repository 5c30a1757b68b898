"""What a gate found, as people and programs read it: JUnit XML, Markdown, GitHub annotations, plain data."""

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from harness.gate.finding import CHANGE, COUNT, FAILED, NOT_JUDGED, Finding, Report, ordered, signed
from harness.records.metrics import metric
from harness.records.render import amount
from harness.stats.sequential import INCONCLUSIVE, PASS, REGRESSION

RULE = (
    "A time passes where even the upper bound of the slow-down lies below the margin; else it is a regression where "
    "even the lower bound lies above this machine's noise floor; else it is inconclusive. Counts have no noise: worse "
    "by more than their margin (0 unless given) is a regression. Quality passes where a loss of the margin is ruled "
    "out, and is a regression where a loss is certain. Modelled energy is never judged."
)
SUITE = "zoo gate"
UNFIT_FOR_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MARKDOWN_SIGNS = re.compile(r"[\\`*|\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
COLUMNS = ("trial", "metric", "change", "margin", "noise floor", "n", "verdict")
LEVELS = {REGRESSION: "error", FAILED: "error", INCONCLUSIVE: "warning"}


def verdict_line(report: Report) -> str:
    """The gate in one line: the worst outcome, how many comparisons have it, and what became of the others."""
    tally = Counter(f.outcome for f in report.findings)
    judged, worst = tally.total() - tally[NOT_JUDGED], report.outcome
    if not judged:
        return "Failed: nothing was compared."
    words = {
        REGRESSION: "worse than the baseline",
        FAILED: "without a measurement",
        INCONCLUSIVE: "too uncertain to judge",
        PASS: "within their margins",
    }
    rest = [f"{tally[o]} {o}" for o in (FAILED, INCONCLUSIVE, PASS, NOT_JUDGED) if tally[o] and o != worst]
    others = f" ({', '.join(rest)})" if rest else ""
    return f"{worst.capitalize()}: {tally[worst]} of {judged} comparisons {words[worst]}{others}."


def junit(report: Report) -> str:
    """JUnit XML: a suite a gate, a case a finding. A regression is a failure, what failed an error, doubt skipped."""
    found = ordered(report.findings)
    tally = Counter(f.outcome for f in found)
    totals = {
        "tests": len(found),
        "failures": tally[REGRESSION],
        "errors": tally[FAILED],
        "skipped": tally[INCONCLUSIVE] + tally[NOT_JUDGED],
        "time": f"{report.seconds:.3f}",
    }
    counts = {name: str(value) for name, value in totals.items()}
    suites = ElementTree.Element("testsuites", {"name": SUITE, **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": SUITE, "hostname": _xml(report.machine), **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(report):
        ElementTree.SubElement(properties, "property", {"name": _xml(name), "value": _xml(value)})
    for finding in found:
        _case(suite, finding)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _case(suite: ElementTree.Element, found: Finding) -> None:
    names = {"classname": _xml(found.trial), "name": _xml(found.metric)}
    case, sentence = ElementTree.SubElement(suite, "testcase", names), _xml(found.sentence)
    kind = {REGRESSION: "failure", FAILED: "error", INCONCLUSIVE: "skipped", NOT_JUDGED: "skipped"}.get(found.outcome)
    if kind == "skipped":
        ElementTree.SubElement(case, kind, {"message": f"{found.outcome}: {sentence}"})
    elif kind is not None:
        ElementTree.SubElement(case, kind, {"message": sentence, "type": found.outcome}).text = sentence
    ElementTree.SubElement(case, "system-out").text = sentence


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    """What must be known to believe the findings, one fact a property."""
    yield "verdict", verdict_line(report)
    yield "candidate", report.candidate
    yield "baseline", report.baseline
    yield "machine", report.machine
    yield "machine.label", report.machine_label
    for name in ("model", "false_alarm", "false_pass", "margin", "quality_margin"):
        if name in report.policy:
            yield f"policy.{name}", str(report.policy[name])
    yield from _flat("environment", report.environment)
    yield from _flat("floor", report.floors)
    for warning in report.warnings:
        yield "warning", warning
    yield "reproduce", report.reproduce


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A tree of facts as names with dots."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif value is not None:
        yield name, str(value)


def _xml(text: str) -> str:
    """XML 1.0 has no place for most control characters, not even escaped."""
    return UNFIT_FOR_XML.sub("\ufffd", text)


def markdown(report: Report) -> str:
    """For a pull-request comment or a step summary: verdict, table with the worst first, passes folded, fine print."""
    found = ordered(report.findings)
    quiet = [f for f in found if f.outcome in (PASS, NOT_JUDGED)]
    loud = [f for f in found if f not in quiet]
    verdict, _, rest = verdict_line(report).partition(":")
    parts = [f"**{verdict}:**{rest}"]
    if loud:
        parts += [_table(loud), "\n".join(f"- {_name(f.trial)}: {_text(f.sentence)}" for f in loud)]
    if quiet:
        what = ", ".join(f"{outcome}: {n}" for outcome, n in Counter(f.outcome for f in quiet).items())
        parts.append(f"<details><summary>{what}</summary>\n\n{_table(quiet)}\n\n</details>")
    parts.append("\n".join(f"- {line}" for line in _fine_print(report)))
    return "\n\n".join(parts) + "\n"


def _table(found: Sequence[Finding]) -> str:
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(_row, found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(found: Finding) -> list[str]:
    margin = "" if found.margin is None else signed(found.margin, _unit(found)).lstrip("+")
    floor = "" if found.floor is None else f"{found.floor:.2%}"
    n = "" if found.n is None else str(found.n)
    return [_name(found.trial), _name(found.metric), _text(_change(found)), margin, floor, n, found.outcome]


def _unit(found: Finding) -> str:
    """A count's margin is relative, as a time's."""
    return CHANGE if found.form == COUNT else found.form


def _change(found: Finding) -> str:
    """The figure with its bounds or both sides, as short as a table needs it."""
    if found.value is None:
        return ""
    if found.form == COUNT and found.sides is not None:
        one, other = (amount(side, metric(found.metric).unit) for side in found.sides)
        return f"{one} against {other}" if found.value else f"{one} = {other}"
    bounds = "" if (found.low, found.high) == (None, None) else _bounds(found)
    return f"{signed(found.value, found.form)}{bounds}"


def _bounds(found: Finding) -> str:
    return f" ({signed(found.low, found.form)} to {signed(found.high, found.form)})"


def _fine_print(report: Report) -> Iterator[str]:
    """What the verdict rests on."""
    sides = f"{_name(report.candidate)} against {_name(report.baseline)}, " if report.candidate else ""
    yield f"Measured: {sides}{report.seconds:.0f} s on {_text(report.machine_label)} ({_name(report.machine)})"
    yield f"Rule: {RULE}"
    yield f"Error rates: {error_rates(report)}"
    for warning in report.warnings:
        yield f"Note: {_text(warning)}"
    if report.reproduce:
        yield f"Again: {_name(report.reproduce)}"


def error_rates(report: Report) -> str:
    """What the policy promises, in plain words."""
    alarm, missed = (report.policy.get(name) for name in ("false_alarm", "false_pass"))
    if alarm is None or missed is None:
        return "the policy states none"
    return (
        f"a gate whose sides are equal alarms at all with a chance of at most {alarm:.3g}; "
        f"one slow-down of the margin passes with a chance of at most {missed:.3g}"
    )


def _text(text: str) -> str:
    """Text that stays text in a Markdown cell: no table, no markup, nobody is mentioned."""
    line = html.escape(" ".join(text.split()), quote=False)
    line = MARKDOWN_SIGNS.sub(lambda sign: f"&#{ord(sign.group())};", line)
    return re.sub(r"(?<![A-Za-z0-9_])@", "@&#8203;", line)


def _name(text: str) -> str:
    return f"<code>{_text(text)}</code>" if text else ""


def annotations(report: Report) -> str:
    """GitHub workflow commands, the worst first (GitHub shows ten errors and ten warnings a step); else nothing."""
    lines = []
    for found in ordered(report.findings):
        if found.outcome in LEVELS:
            title = _command_text(f"{found.outcome}: {found.trial}").replace(":", "%3A").replace(",", "%2C")
            lines.append(f"::{LEVELS[found.outcome]} title={title}::{_command_text(found.sentence)}\n")
    return "".join(lines)


def _command_text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def as_document(report: Report) -> dict[str, Any]:
    """Everything as plain data; the findings, the worst first, carry their sentences."""
    document = {**asdict(report), "outcome": report.outcome, "verdict": verdict_line(report)}
    document["findings"] = [{**asdict(f), "sentence": f.sentence} for f in ordered(report.findings)]
    return document

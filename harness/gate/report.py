"""Verdicts as a Markdown summary for a pull request, and as JUnit XML. Torch-free."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence

from harness.gate.snapshot import Snapshot
from harness.gate.verdict import Verdict

__all__ = ["headline", "markdown", "to_junit", "wording"]

_MARKS = {
    "pass": "✅ pass",
    "regression": "❌ regression",
    "inconclusive": "❔ inconclusive",
    "unmeasured": "⚠️ could not measure",
    "new": "🆕 not judged",
}


def headline(verdicts: Sequence[Verdict]) -> str:
    """How many of each, the gravest first."""
    order = ("regression", "unmeasured", "inconclusive", "new", "pass")
    counts = [(name, sum(v.verdict == name for v in verdicts)) for name in order]
    return ", ".join(f"{count} {_MARKS[name].split(' ', 1)[1]}" for name, count in counts if count) or "nothing judged"


def wording(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """Baseline, candidate, difference, interval, smallest visible loss; AP x 100, cost in gmacs, time in %."""
    value, change = _FORMATS.get(verdict.metric, _TIME)
    low, high = verdict.interval or (0.0, 0.0)
    smallest = verdict.smallest_visible_change
    return (
        "" if verdict.baseline is None else value(verdict.baseline),
        "" if verdict.candidate is None else value(verdict.candidate),
        "" if verdict.difference is None else change(verdict.difference),
        "" if low == high else f"{change(low)} to {change(high)}",
        "" if smallest is None else change(smallest).lstrip("+"),
    )


_Format = Callable[[float], str]
_FORMATS: dict[str, tuple[_Format, _Format]] = {
    "ap": (lambda ap: f"{100 * ap:.2f}", lambda ap: f"{100 * ap:+.2f}"),
    "cost": (lambda macs: f"{macs / 1e9:.6f} G", "{:+,.0f}".format),
}
_TIME: tuple[_Format, _Format] = ("{:.3f} x reference".format, lambda share: f"{100 * share:+.1f} %")


def markdown(verdicts: Sequence[Verdict], baseline: Snapshot, candidate: Snapshot) -> str:
    """A table, one line for each verdict, with where both sides come from."""
    lines = [
        f"### Gate {_escaped(candidate.suite)}: {headline(verdicts)}",
        "",
        "| configuration | metric | baseline | candidate | difference | 98 % interval | loss visible | verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for v in verdicts:
        cells = [v.label, v.metric, *wording(v), _MARKS[v.verdict] + (f"<br>{_escaped(v.note)}" if v.note else "")]
        lines.append("| " + " | ".join([_escaped(cells[0]), *cells[1:]]) + " |")
    lines += [
        "",
        f"Baseline: revision {baseline.revision}, {baseline.created}; candidate: revision {candidate.revision}.",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text as Markdown that shows it as it is, on one line."""
    signs = {"&": "&amp;", "<": "&lt;", **{sign: f"\\{sign}" for sign in "\\|`*[]"}}
    return "".join(signs.get(sign, sign) for sign in _plain(text))


def _plain(text: str) -> str:
    """Text of one line without control characters, which neither XML nor a table may hold."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


def to_junit(verdicts: Sequence[Verdict], suite: str) -> str:
    """One test case for each verdict: regression is a failure, could not measure an error, not decided is skipped."""
    tags = {"regression": "failure", "unmeasured": "error", "inconclusive": "skipped", "new": "skipped"}
    totals = {tag: sum(tags.get(v.verdict) == tag for v in verdicts) for tag in ("failure", "error", "skipped")}
    root = ET.Element(
        "testsuite",
        name=_plain(f"paretopose gate {suite}"),
        tests=str(len(verdicts)),
        failures=str(totals["failure"]),
        errors=str(totals["error"]),
        skipped=str(totals["skipped"]),
    )
    for v in verdicts:
        case = ET.SubElement(root, "testcase", classname=_plain(v.label), name=v.metric)
        before, after, difference, interval, smallest = wording(v)
        text = f"{before} -> {after} ({difference}; {interval}); loss visible: {smallest}; {_plain(v.note)}"
        if v.verdict in tags:
            ET.SubElement(case, tags[v.verdict], message=f"{v.verdict}: {_plain(v.note) or difference}").text = text
        else:
            ET.SubElement(case, "system-out").text = text
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"

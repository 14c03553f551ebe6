"""What preflight found, as text for people and as JSON for programs. Pure."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence

from doctor.findings import Finding, Outcome
from doctor.report import as_plain, count, in_full, printable, section
from preflight.flavor import flavor_of
from preflight.question import is_ready
from preflight.surroundings import Surroundings

_MOST_UNREADABLE = 10


def verdict(findings: Sequence[Finding], seen: Surroundings) -> str:
    """Return the one line that says whether to install, and what."""
    broken, warnings = _of(findings, Outcome.BROKEN), _of(findings, Outcome.WARNING)
    if not is_ready(findings):
        return f"NOT READY: {count(len(broken), 'cause')}. First: {broken[0].result.saw}"
    told = f" ({count(len(warnings), 'warning')})" if warnings else ""
    if not seen.machines:
        return f"READY{told}: no Nodes were seen, so choose the page of your distribution"
    return f"READY{told}: {flavor_of(seen.machines).command}"


def as_text(findings: Sequence[Finding], seen: Surroundings, *, width: int = 100) -> str:
    """Return the report for people: verdict, what stands against it, warnings, what is fine."""
    return "".join(f"{printable(line)}\n" for line in _lines(findings, seen, width))


def as_json(findings: Sequence[Finding], seen: Surroundings) -> str:
    """Return the report for programs; `version` changes when a member changes its meaning."""
    flavor = flavor_of(seen.machines) if seen.machines else None
    report = {
        "version": 1,
        "verdict": verdict(findings, seen),
        "ready": is_ready(findings),
        "distribution": flavor.name if flavor else None,
        "install": flavor.command if flavor else None,
        "findings": [as_plain(found) for found in findings],
        "unreadable": dict(seen.unreadable),
    }
    return json.dumps(report, indent=2) + "\n"


def _lines(findings: Sequence[Finding], seen: Surroundings, width: int) -> Iterator[str]:
    yield from textwrap.wrap(verdict(findings, seen), width, break_long_words=False)
    for number, found in enumerate(_of(findings, Outcome.BROKEN), start=1):
        yield from in_full(found, f"{number}.", width)
    for found in _of(findings, Outcome.WARNING):
        yield from in_full(found, "Warning:", width)
    yield from section("Could not look", _of(findings, Outcome.UNKNOWN), width)
    yield from section("Fine", _of(findings, Outcome.OK), width)
    absent = [found.check.id for found in _of(findings, Outcome.NOT_APPLICABLE)]
    if absent:
        yield ""
        yield from textwrap.wrap(f"Not here: {', '.join(absent)}", width)
    if seen.unreadable:
        yield ""
        yield "Could not read:"
        for what, why in list(seen.unreadable.items())[:_MOST_UNREADABLE]:
            yield f"   {what}: {why[:200]}"


def _of(findings: Sequence[Finding], outcome: Outcome) -> list[Finding]:
    return [found for found in findings if found.result.outcome is outcome]

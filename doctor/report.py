"""A diagnosis as text for people and as JSON for programs. Pure: text in, text out."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from doctor.diagnosis import Diagnosis
from doctor.facts.facts import Facts
from doctor.findings import Finding, Outcome, Question

_INDENT = "   "
#: Signs repeat words, so that nothing depends on them or on colour.
_SIGN = {
    Outcome.OK: "ok",
    Outcome.WARNING: "!",
    Outcome.BROKEN: "x",
    Outcome.UNKNOWN: "?",
    Outcome.NOT_APPLICABLE: "-",
}
_CHECKED = (Outcome.OK, Outcome.WARNING, Outcome.BROKEN)


def verdict(diagnosis: Diagnosis) -> str:
    """Return the one line that says how things stand."""
    causes, consequences = len(diagnosis.causes), len(diagnosis.consequences)
    warnings, unknown = len(diagnosis.of(Outcome.WARNING)), len(diagnosis.of(Outcome.UNKNOWN))
    if diagnosis.is_broken:
        first = (diagnosis.causes or diagnosis.of(Outcome.BROKEN))[0]
        more = f", {count(consequences, 'consequence')}" if consequences else ""
        return f"BROKEN: {count(causes, 'cause')}{more}. First: {first.result.saw}"
    if not diagnosis.facts.has_gpu():
        if diagnosis.facts.host.was_read:
            return "NOTHING TO DO: this node has no NVIDIA GPU, and nothing here expects one"
        return "NOTHING SEEN: no sign of an NVIDIA GPU; run gpudetour doctor on the node itself"
    passed = count(len(diagnosis.of(Outcome.OK)), "check")
    told = [count(warnings, "warning")] if warnings else []
    told += [f"{count(unknown, 'check')} could not look"] if unknown else []
    return f"FINE: {passed} passed" + "".join(f", {each}" for each in told)


def as_text(diagnosis: Diagnosis, *, verbose: bool, width: int = 100) -> str:
    """Return the report for people: verdict, causes, consequences, warnings, what was not seen."""
    lines = _lines(diagnosis, verbose=verbose, width=width)
    return "".join(f"{printable(line)}\n" for line in lines)


def as_json(diagnosis: Diagnosis) -> str:
    """Return the report for programs; `version` changes when a member changes its meaning."""
    report = {
        "version": 1,
        "verdict": verdict(diagnosis),
        "broken": diagnosis.is_broken,
        "node": diagnosis.facts.cluster.node or None,
        "findings": [as_plain(found) for found in diagnosis.findings],
        "unreadable": dict(_unreadable(diagnosis.facts)),
    }
    return json.dumps(report, indent=2) + "\n"


def catalogue(checks: Sequence[Question]) -> str:
    """Return all checks as a Markdown table; docs/doctor.md holds the doctor's."""
    rows = [f"| `{check.id}` | {check.title} | {check.why} |" for check in checks]
    return "\n".join(
        ("| check | what is true when all is well | why it matters |", "|---|---|---|", *rows)
    )


def subject(facts: Facts) -> str:
    """Return what was looked at, in one line."""
    host, cluster = facts.host, facts.cluster
    told = [cluster.node or "this machine"]
    if host.was_read:
        runs_pods = host.runtime.config_exists or host.kubelet.has_folder
        told += [host.os_name, str(host.distribution) if runs_pods else "no Kubernetes"]
        told += [f"kernel {host.kernel or 'unknown'}"]
        told += [count(len(host.gpus), "GPU")]
        told += [f"driver {host.driver.version}"] if host.driver.version else []
    told += [cluster.runtime_version] if cluster.runtime_version else []
    return ", ".join(each for each in told if each)


def _lines(diagnosis: Diagnosis, *, verbose: bool, width: int) -> Iterator[str]:
    yield from textwrap.wrap(f"{verdict(diagnosis)}", width)
    yield f"Looked at: {subject(diagnosis.facts)}"
    causes = diagnosis.causes
    for number, found in enumerate(causes, start=1):
        yield from in_full(found, f"{number}.", width)
        following = [c.check.id for c in diagnosis.consequences if found.check.id in c.because_of]
        if following:
            yield from _labelled("then", f"{', '.join(following)} (mended with it)", width)
    if diagnosis.consequences and verbose:
        yield from section("What follows from it", diagnosis.consequences, width)
    for found in diagnosis.of(Outcome.WARNING):
        yield from in_full(found, "Warning:", width)
    yield from _not_seen(diagnosis, width)
    if verbose:
        yield from section("Passed", diagnosis.of(Outcome.OK), width)
        yield from section("Not asked", diagnosis.of(Outcome.NOT_APPLICABLE), width)
    else:
        asked = len(diagnosis.of(*_CHECKED))
        yield ""
        yield f"{asked} of {len(diagnosis.findings)} checks applied; --verbose shows them all."


def in_full(found: Finding, mark: str, width: int) -> Iterator[str]:
    """Yield a finding with what was seen, why it matters and what mends it."""
    yield ""
    sign = _SIGN[found.result.outcome]
    yield f"{mark} [{sign}] {found.check.id}: should be: {found.check.title}"
    yield from _labelled("saw", found.result.saw, width)
    yield from _labelled("why", found.check.why, width)
    for number, command in enumerate(found.result.mend):
        # Commands are never folded: they are copied.
        yield f"{_INDENT}{'mend' if number == 0 else '':<5}{command}"


def section(title: str, findings: Sequence[Finding], width: int) -> Iterator[str]:
    """Yield a title and a line for each finding; nothing where there are none."""
    if not findings:
        return
    yield ""
    yield f"{title}:"
    for found in findings:
        sign = _SIGN[found.result.outcome]
        line = f"[{sign}] {found.check.id}: {found.result.saw}"
        yield from textwrap.wrap(line, width, initial_indent=_INDENT, subsequent_indent=_INDENT * 2)


def _not_seen(diagnosis: Diagnosis, width: int) -> Iterator[str]:
    yield from section("Could not look", diagnosis.of(Outcome.UNKNOWN), width)
    unreadable = list(_unreadable(diagnosis.facts))
    if not unreadable:
        return
    yield ""
    yield "Could not read:"
    for path, why in unreadable[:10]:
        yield f"{_INDENT}{path}: {why[:200]}"
    if len(unreadable) > 10:
        yield f"{_INDENT}and {len(unreadable) - 10} more (all of them with -o json)"


def _labelled(label: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=f"{_INDENT}{label:<5}",
        subsequent_indent=f"{_INDENT}     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def printable(text: str) -> str:
    """Files may hold anything, terminal commands included."""
    return "".join(each if each.isprintable() else " " for each in text)


def _unreadable(facts: Facts) -> Iterator[tuple[str, str]]:
    yield from facts.host.unreadable.items()
    yield from facts.cluster.unreadable.items()


def as_plain(found: Finding) -> dict[str, Any]:
    """Return a finding as it stands in JSON."""
    return {
        "id": found.check.id,
        "title": found.check.title,
        "outcome": str(found.result.outcome),
        "saw": found.result.saw,
        "why": found.check.why,
        "mend": list(found.result.mend),
        "because_of": list(found.because_of),
    }


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

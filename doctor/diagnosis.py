"""From the answers of all checks to a diagnosis: causes first, then what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from doctor.facts.facts import Facts
from doctor.findings import Check, Finding, Need, Outcome, Result, not_applicable, unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Findings in the order of a person's work: root causes, consequences, warnings, the rest."""

    facts: Facts
    findings: tuple[Finding, ...]

    def of(self, *outcomes: Outcome) -> tuple[Finding, ...]:
        """Return the findings that ended so."""
        return tuple(found for found in self.findings if found.result.outcome in outcomes)

    @property
    def causes(self) -> tuple[Finding, ...]:
        """Return what is broken and explained by nothing else."""
        return tuple(found for found in self.of(Outcome.BROKEN) if not found.because_of)

    @property
    def consequences(self) -> tuple[Finding, ...]:
        """Return what is broken because something else is."""
        return tuple(found for found in self.of(Outcome.BROKEN) if found.because_of)

    @property
    def is_broken(self) -> bool:
        """Tell whether anything keeps GPUs from being used."""
        return bool(self.of(Outcome.BROKEN))


def diagnose(facts: Facts, checks: Sequence[Check]) -> Diagnosis:
    """Run the checks; their order is that of the layers, from the hardware up."""
    results = {check.id: _run(check, facts) for check in checks}
    failed = {name for name, result in results.items() if result.outcome is Outcome.BROKEN}
    by_id = {check.id: check for check in checks}
    findings = [
        Finding(
            check=check,
            result=results[check.id],
            because_of=_roots(check, failed, by_id) if check.id in failed else (),
        )
        for check in checks
    ]
    return Diagnosis(facts=facts, findings=tuple(sorted(findings, key=_rank)))


def _run(check: Check, facts: Facts) -> Result:
    if (missing := _missing(check.needs, facts)) is not None:
        return missing
    result = check.look(facts)
    closed = next((path for path in facts.host.unreadable if path.startswith(check.reads)), None)
    if result.outcome is Outcome.BROKEN and closed is not None:
        return unknown(f"{result.saw}; but {closed} could not be read", "sudo gpudetour doctor")
    return result


def _missing(needs: frozenset[Need], facts: Facts) -> Result | None:
    """Say why a check cannot be asked, in the order in which it matters."""
    if Need.HOST in needs and not facts.host.was_read:
        return not_applicable("the node's files were not looked at")
    if Need.CLUSTER in needs and not facts.cluster.was_read:
        return not_applicable("the API server was not asked; name the node with --node")
    if Need.LOG in needs and facts.plugin_log is None:
        return not_applicable("no log of the device plugin; give one with --plugin-log")
    if Need.GPU in needs and not facts.has_gpu():
        return not_applicable("this node has no NVIDIA GPU")
    if Need.PLUGIN in needs:
        if facts.cluster.plugins is None:
            return unknown("DaemonSets could not be read")
        if not facts.cluster.plugins:
            return not_applicable("NVIDIA's device plugin is not installed")
    return None


def _roots(check: Check, failed: set[str], by_id: Mapping[str, Check]) -> tuple[str, ...]:
    """Return the failed checks behind a failed one that nothing else explains."""
    roots: list[str] = []
    seen = {check.id}
    pending = _failed_causes(check, failed)
    while pending:
        cause = pending.pop(0)
        if cause in seen:
            continue
        seen.add(cause)
        deeper = _failed_causes(by_id[cause], failed)
        if deeper:
            pending += deeper
        else:
            roots.append(cause)
    return tuple(roots)


def _failed_causes(check: Check, failed: Iterable[str]) -> list[str]:
    return [cause for cause in check.causes if cause in failed]


def _rank(finding: Finding) -> tuple[int, bool]:
    order = (
        Outcome.BROKEN,
        Outcome.WARNING,
        Outcome.UNKNOWN,
        Outcome.OK,
        Outcome.NOT_APPLICABLE,
    )
    return order.index(finding.result.outcome), bool(finding.because_of)

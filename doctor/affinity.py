"""Whether a pod template's rules choose a node, in the words of whoever must change them. Pure.

Rules as in kube-scheduler's NodeAffinity and TaintToleration plugins; preferences do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doctor.shapes import mappings
from kube.objects import Taint

#: What DaemonSets' pods tolerate by themselves (the DaemonSet controller adds them).
_ALWAYS_TOLERATED = "node.kubernetes.io/"
_HARD = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A pod's node selector, and the alternatives of its required node affinity."""

    selector: Mapping[str, Any] = field(default_factory=dict)
    terms: Sequence[Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Selection:
        """Read a pod spec; parts of another shape than the API's count as absent."""
        value: Any = spec
        for step in (
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
        ):
            value = value.get(step) if isinstance(value, Mapping) else None
        selector = spec.get("nodeSelector")
        return cls(
            selector=selector if isinstance(selector, Mapping) else {},
            terms=mappings(value) if isinstance(value, list) else None,
        )


def mismatch(selection: Selection, labels: Mapping[str, str], *, node: str) -> str:
    """Return which labels the node lacks, empty where the pod may run there."""
    for key, value in selection.selector.items():
        if labels.get(key) != value:
            return f"its nodeSelector asks for {key}={value}"
    if selection.terms is None:
        return ""
    wanted = [_unmet(term, labels, node) for term in selection.terms]
    if not all(wanted):
        return ""
    return f"its nodeAffinity asks for {' or '.join(dict.fromkeys(wanted)) or 'nothing at all'}"


def untolerated(tolerations: Sequence[Mapping[str, Any]], taints: Sequence[Taint]) -> str:
    """Return the first taint of the node that keeps the pod away, empty where none does."""
    for taint in taints:
        known = taint.key.startswith(_ALWAYS_TOLERATED)
        if taint.effect in _HARD and not known and not any(_covers(t, taint) for t in tolerations):
            return f"{taint.key}={taint.value or ''}:{taint.effect}"
    return ""


def _unmet(term: Mapping[str, Any], labels: Mapping[str, str], node: str) -> str:
    rules = mappings(term.get("matchExpressions"))
    fields = mappings(term.get("matchFields"))
    if not rules and not fields:
        return "an empty term, which matches no node"
    unmet = [_written(rule) for rule in rules if not _holds(rule, labels)]
    unmet += [_written(rule) for rule in fields if not _holds(rule, {"metadata.name": node})]
    return " and ".join(unmet)


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = _parts(rule)
    value = labels.get(key)
    match operator:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Gt" | "Lt":
            return _compares(value, values, greater=operator == "Gt")
    return False


def _compares(value: str | None, values: list[str], *, greater: bool) -> bool:
    try:
        number, bound = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if greater else number < bound


def _written(rule: Mapping[str, Any]) -> str:
    key, operator, values = _parts(rule)
    if operator == "In":
        return f"{key}={'|'.join(values)}"
    return f"{key} {operator} {','.join(values)}".strip()


def _parts(rule: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    values = rule.get("values")
    return (
        str(rule.get("key", "")),
        str(rule.get("operator", "")),
        [str(value) for value in values] if isinstance(values, list) else [],
    )


def _covers(toleration: Mapping[str, Any], taint: Taint) -> bool:
    if toleration.get("effect") not in (None, "", taint.effect):
        return False
    key = toleration.get("key")
    if toleration.get("operator") == "Exists":
        return key in (None, "", taint.key)
    return key == taint.key and (toleration.get("value") or "") == (taint.value or "")

"""What keeps a pod from a node whatever its GPUs: filters of kube-scheduler, repeated. Pure.

Those that depend on all pods of a node (free CPU, ports, volumes) are not here: `scheduler_words`
has them from kube-scheduler itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doctor.affinity import Selection, mismatch, untolerated
from doctor.shapes import mapping, mappings
from explain.causes import Cause
from gpus.demand import is_gpu_resource
from gpus.quantity import QuantityError, parse, written
from kube.objects import Node, Taint

#: Taints of the node controller; what they stand for is told better by the node itself.
_SYSTEM_TAINT = "node.kubernetes.io/"
_HARD = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Barrier:
    """Why a node is left out, and the label, taint or amount that it is about."""

    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a pod spec says about nodes, read once."""

    selection: Selection
    tolerations: tuple[Mapping[str, Any], ...]
    #: What the whole pod asks for at its peak, GPUs left out; in units of the resource.
    requests: Mapping[str, float]

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Rules:
        """Read a pod spec; parts of another shape than the API's count as absent."""
        return cls(
            selection=Selection.of(spec),
            tolerations=tuple(mappings(spec.get("tolerations"))),
            requests=_requests(spec),
        )


def barrier(rules: Rules, node: Node) -> Barrier | None:
    """Return what keeps the pod from the node; None where nothing of this module does."""
    taints = node.spec.taints or []
    if node.spec.unschedulable and not _tolerates_cordon(rules):
        return Barrier(Cause.CORDONED, "it is cordoned")
    if state := _not_ready(rules, node, taints):
        return Barrier(Cause.NOT_READY, state)
    if taint := untolerated(rules.tolerations, taints):
        return Barrier(Cause.TAINT, taint)
    if unmet := mismatch(rules.selection, node.metadata.labels or {}, node=node.metadata.name):
        return Barrier(Cause.SELECTOR, unmet)
    for name, asked in rules.requests.items():
        there = amount((node.status.allocatable or {}).get(name, 0))
        if asked > there:
            text = f"asks for {_shown(name, asked)} {name}, and the whole node has"
            text += f" {_shown(name, there)}"
            return Barrier(Cause.RESOURCES, text)
    return None


def amount(quantity: Any) -> float:
    """Return a quantity as a number, zero where it is none."""
    try:
        return float(parse(quantity))
    except (QuantityError, OverflowError):
        return 0.0


def _shown(name: str, value: float) -> str:
    """Write an amount as people do: bytes in their largest unit, all else as a number."""
    in_bytes = name in ("memory", "ephemeral-storage") or name.startswith("hugepages-")
    return written(int(value)) if in_bytes else f"{value:g}"


def _tolerates_cordon(rules: Rules) -> bool:
    return any(
        toleration.get("operator") == "Exists"
        and toleration.get("key") in (None, "", f"{_SYSTEM_TAINT}unschedulable")
        for toleration in rules.tolerations
    )


def _not_ready(rules: Rules, node: Node, taints: list[Taint]) -> str:
    """Return why the node takes no pods now, by the taints of the node controller."""
    everything = any(
        toleration.get("operator") == "Exists" and not toleration.get("key")
        for toleration in rules.tolerations
    )
    named = [
        taint.key
        for taint in taints
        if taint.key.startswith(_SYSTEM_TAINT)
        and taint.key != f"{_SYSTEM_TAINT}unschedulable"
        and taint.effect in _HARD
    ]
    # The default toleration of not-ready is for NoExecute; new pods are kept away all the same.
    if not named or everything:
        return ""
    ready = [each for each in node.status.conditions or () if each.type == "Ready"]
    told = ready[0].message if ready and ready[0].status != "True" else ""
    return f"taint {named[0]}" + (f": {told[:160]}" if told else "")


def _requests(spec: Mapping[str, Any]) -> dict[str, float]:
    """Return the sum of the app containers, or the largest init container where that is more."""
    total: dict[str, float] = {}
    for container in mappings(spec.get("containers")):
        for name, quantity in _asked(container).items():
            total[name] = total.get(name, 0.0) + quantity
    for container in mappings(spec.get("initContainers")):
        for name, quantity in _asked(container).items():
            total[name] = max(total.get(name, 0.0), quantity)
    return total


def _asked(container: Mapping[str, Any]) -> dict[str, float]:
    asked = mapping(mapping(container.get("resources")).get("requests"))
    return {
        name: amount(quantity)
        for name, quantity in asked.items()
        if not is_gpu_resource(name) and amount(quantity) > 0
    }

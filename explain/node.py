"""What one node would answer to a pod that asks for one GPU and nothing else. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from explain import openings
from explain.causes import Cause
from explain.facts import Facts
from explain.findings import Finding
from explain.leases import is_silent, seconds_since
from explain.report import finding_as_json, finding_as_lines, labelled, printable
from explain.verdicts import Judge, states_of, verdicts
from gpus import annotations as contract
from gpus.demand import ContainerDemand, ContainerKind, Demand
from gpus.model import GPU_RESOURCE
from kube.objects import Node

_ONE_GPU = Demand(
    containers=(ContainerDemand(name="main", kind=ContainerKind.APP, counts={GPU_RESOURCE: 1}),),
    totals={GPU_RESOURCE: 1},
)
#: What the webhook gives to every GPU pod.
_SPEC = {"tolerations": [{"key": str(GPU_RESOURCE), "operator": "Exists"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplanation:
    """The answer; `finding` is None where the node takes the pod.

    `summary` and `reason` are the agent's own words, `heartbeat` says when it was heard of.
    """

    name: str
    path: str
    reason: str
    summary: str
    heartbeat: str
    free: int
    holders: tuple[str, ...]
    finding: Finding | None = None


def explain_node(facts: Facts, node: Node) -> NodeExplanation:
    """Return why a node takes GPU pods or not. `facts.nodes` need not hold it."""
    texts = node.metadata.annotations or {}
    known = replace(facts, nodes=(node,), spec=_SPEC)
    judge, states = Judge(_ONE_GPU, listed=True), states_of(known)
    found = verdicts(known, judge, states)
    state = states[node.metadata.name]
    finding = None
    if any(verdict.cause is not Cause.FITS for verdict in found):
        (finding,) = openings.findings(known, found, judge)
    return NodeExplanation(
        name=node.metadata.name,
        path=texts.get(contract.PATH, "unknown"),
        reason=texts.get(contract.PATH_REASON, ""),
        summary=texts.get(contract.SUMMARY, ""),
        heartbeat=_heartbeat(facts, node.metadata.name),
        free=state.free.get(GPU_RESOURCE, 0),
        holders=tuple(sorted(pod.key for pod in state.pods.values())),
        finding=finding,
    )


def as_text(told: NodeExplanation) -> str:
    """Return the answer for people."""
    return "".join(f"{printable(line)}\n" for line in _lines(told))


def as_json(told: NodeExplanation) -> str:
    """Return the answer for programs; `version` changes when a member changes its meaning."""
    report: dict[str, Any] = {
        "version": 1,
        "verdict": _verdict(told),
        "node": told.name,
        "path": told.path,
        "reason": told.reason,
        "summary": told.summary,
        "heartbeat": told.heartbeat,
        "free": told.free,
        "holders": list(told.holders),
        "cause": None if told.finding is None else finding_as_json(told.finding),
    }
    return json.dumps(report, indent=2) + "\n"


def _verdict(told: NodeExplanation) -> str:
    if told.finding is None:
        gpus = f"{told.free} GPU{'' if told.free == 1 else 's'}"
        return f"SERVES: node {told.name} has {gpus} free (path {told.path})"
    return f"TAKES NO GPU POD NOW: node {told.name}: {told.finding.cause.title}"


def _lines(told: NodeExplanation) -> Iterator[str]:
    yield _verdict(told)
    rows: Sequence[tuple[str, str]] = (
        ("path", f"{told.path}: {told.reason}" if told.reason else told.path),
        ("gpus", told.summary),
        ("held", f"by {', '.join(told.holders)}" if told.holders else ""),
        ("agent", told.heartbeat),
    )
    for label, text in rows:
        yield from labelled(label, text)
    if told.finding is not None:
        yield from finding_as_lines(told.finding, 1)


def _heartbeat(facts: Facts, name: str) -> str:
    if facts.leases is None:
        return "its Lease could not be read"
    lease = facts.leases.get(name)
    if lease is None:
        return "never heard of: it has no Lease"
    age = seconds_since(lease.spec.renew_time, now=facts.now)
    word = "silent" if is_silent(lease, now=facts.now) else "alive"
    return f"{word}, heard of {age:.0f} s ago" if age is not None else word

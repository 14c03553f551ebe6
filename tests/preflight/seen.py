"""Clusters as preflight sees them, with one thing changed."""

from __future__ import annotations

from typing import Any

from doctor.findings import Finding, Outcome
from preflight.catalogue import CHECKS
from preflight.question import ask
from preflight.surroundings import Machine, Right, Surroundings, Workload

CONTROL_PLANE = {"node-role.kubernetes.io/control-plane": ""}


def node(name: str = "a", kubelet: str = "v1.34.2", **more: Any) -> Machine:
    return Machine(name=name, kubelet=kubelet, **{"labels": CONTROL_PLANE, **more})


def cluster(**changes: Any) -> Surroundings:
    """A kubeadm cluster that has nothing to do with GPUs yet."""
    fresh: dict[str, Any] = {
        "version": "v1.34.2",
        "rights": (Right(verb="create", group="", resource="services"),),
        "runtime_classes": {},
        "machines": (node(),),
        "workloads": (),
        "webhooks": (),
    }
    return Surroundings(**{**fresh, **changes})


def runs(kind: str, name: str, *images: str, **more: Any) -> Surroundings:
    """A cluster in which one workload runs."""
    workload = Workload(kind=kind, namespace="somewhere", name=name, images=images, **more)
    return cluster(workloads=(workload,))


def finding(seen: Surroundings, check: str) -> Finding:
    (found,) = (each for each in ask(CHECKS, seen) if each.check.id == check)
    return found


def outcomes(seen: Surroundings) -> dict[str, Outcome]:
    return {each.check.id: each.result.outcome for each in ask(CHECKS, seen)}

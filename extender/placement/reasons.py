"""Why a node cannot take a pod, in the words that `kubectl describe pod` shows.

kube-scheduler counts identical texts ("3 all GPUs in use, 2 GPUs unhealthy") and cuts the message
at 1,024 characters, so the vocabulary is small, fixed, and free of names and numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """One way in which a node and a pod do not fit, the most telling first.

    Permanent reasons go to `FailedAndUnresolvableNodes`: evicting other pods would not help, so
    preemption skips the node. Every reason is looked at again when the node or a pod changes.
    """

    DEVICES_FROM_TAKEN = ("annotation devices-from names another pod's GPUs, leave it out", True)
    NODE_UNKNOWN = ("GPUs of the node not known yet", False)
    NO_GPU = ("no GPU", True)
    UNREADABLE = ("GPU inventory unreadable", False)
    PATH_CHANGING = ("GPU path is changing", False)
    POD_TOO_OLD = ("pod is older than gpudetour, create it again", True)
    OTHER_KIND = ("no GPU of the asked kind", True)
    TOO_FEW = ("fewer GPUs than asked", True)
    HOLDER_UNKNOWN = ("GPU holder unknown", False)
    UNHEALTHY = ("GPUs unhealthy", False)
    IN_USE = ("all GPUs in use", False)
    NOT_ENOUGH = ("not enough free GPUs", False)

    def __init__(self, text: str, permanent: bool) -> None:
        self.text = text
        self.permanent = permanent


_RANK = {reason: rank for rank, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class Rejection:
    """Every reason why a node cannot take a pod; there is at least one."""

    reasons: tuple[Reason, ...]

    @property
    def main(self) -> Reason:
        """The one that the scheduler is told: permanent ones first, then the most telling."""
        return min(self.reasons, key=lambda reason: (not reason.permanent, _RANK[reason]))

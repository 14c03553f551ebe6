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
    Two share a text, for users need not tell them apart: `NOT_CONNECTED` and `NEVER_CONNECTED`.
    """

    POD_UNUSABLE = (
        "pod must be created again, its devices-from is missing or another pod's",
        True,
    )
    NO_INVENTORY = ("GPU inventory missing or unreadable", False)
    NO_GPU = ("no GPU", True)
    PATH_CHANGING = ("GPU path is changing", False)
    #: Of a MIG profile, UUID, memory or compute capability; or a share where kubelet chooses.
    OTHER_KIND = ("no GPU of the asked kind", True)
    OTHER_PRODUCT = ("no GPU of the asked product", True)
    #: The healthy GPUs can never be.
    NEVER_CONNECTED = ("GPUs not connected as asked", True)
    TOO_FEW = ("fewer GPUs than asked", True)
    NOT_CONNECTED = ("GPUs not connected as asked", False)
    HOLDER_UNKNOWN = ("GPU holder unknown", False)
    UNHEALTHY = ("GPUs unhealthy", False)
    IN_USE = ("all GPUs in use", False)
    NOT_ENOUGH = ("not enough free GPUs or GPU memory", False)

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

"""Whether a GPU may be given to a new pod, by what NVML tells of its hardware.

Pure but for the questions to NVML. Cards without a signal are judged by the others. Reasons hold no
number that changes by itself: each change of a reason is a write.
"""

from __future__ import annotations

from gpus.model import Health
from nodeagent.inventory.attempts import NO_ANSWER
from nodeagent.inventory.binding import (
    GPU_TEMPERATURE,
    RECOVERY_ACTION_FIELD,
    UNCORRECTED,
    VOLATILE,
    Handle,
    field_value,
    value,
)
from nodeagent.inventory.standing import Verdict
from nodeagent.inventory.xids import HealthPolicy, xid_of

#: NVML_GPU_RECOVERY_ACTION_*; 0 is none.
_RECOVERY_ACTIONS = {
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain the programs that use peer to peer, then reset",
    4: "drain the GPU, then reset it",
    5: "recover the IMEX domain",
    6: "reset the GPU's bus",
    7: "reboot the system",
}

ECC_REASON = "uncorrected ECC errors: reset the GPU"
ROWS_REASON = "row remapping failed: the card's memory is worn out, replace it"
_ACTION_REASON = "the driver asks to "
_HEAT_REASON = " °C or hotter: see to its cooling"
#: How reasons begin, and what they are called where there is room for one word.
_KINDS = (
    (ECC_REASON, "ecc"),
    (ROWS_REASON, "row_remapping"),
    (_ACTION_REASON, "recovery_action"),
)


def hardware_health(handle: Handle, policy: HealthPolicy) -> Verdict:
    """Health by the counters that tell of broken hardware; raises `NvmlError`."""
    counted = _counters(handle) if policy.counters else None
    if counted is not None:
        return Verdict(health=Health.FAULTY, reason=counted)
    if policy.max_temperature is not None:
        degrees = value("nvmlDeviceGetTemperature", handle, GPU_TEMPERATURE)
        if degrees is not None and degrees >= policy.max_temperature:
            return Verdict(health=Health.FAULTY, reason=heat_reason(policy.max_temperature))
    return Verdict()


def recovery_reason(action: str) -> str:
    """The reason of a driver that asks for something to be done."""
    return f"{_ACTION_REASON}{action}"


def heat_reason(limit: int) -> str:
    """The reason of a GPU that is too hot."""
    return f"{limit}{_HEAT_REASON}"


def kind_of(health: Health, reason: str) -> str:
    """What is wrong in a word that never holds names or times; empty of a healthy GPU."""
    if health is Health.HEALTHY:
        return ""
    if (xid := xid_of(reason)) is not None:
        return f"xid_{xid}"
    if reason.partition(";")[0].endswith(_HEAT_REASON):
        return "temperature"
    for start, kind in _KINDS:
        if reason.startswith(start):
            return kind
    match health:
        case Health.LOST:
            return "lost"
        case Health.UNMONITORED:
            return "no_answer" if reason.startswith(NO_ANSWER) else "no_nvml"
    return "other"


def _counters(handle: Handle) -> str | None:
    action = field_value(handle, RECOVERY_ACTION_FIELD)
    if action:
        return recovery_reason(_RECOVERY_ACTIONS.get(action, f"recovery action {action}"))
    rows = value("nvmlDeviceGetRemappedRows", handle)
    if rows and rows[3]:
        return ROWS_REASON
    # Volatile counters start again at zero when the GPU is reset.
    return (
        ECC_REASON if value("nvmlDeviceGetTotalEccErrors", handle, UNCORRECTED, VOLATILE) else None
    )

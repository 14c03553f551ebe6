"""Whether a GPU may be given to a new pod, by what NVML tells of its hardware.

Pure but for the questions to NVML. Cards without a signal are judged by the others.
"""

from __future__ import annotations

from gpus.model import Health
from nodeagent.inventory.binding import (
    RECOVERY_ACTION_FIELD,
    UNCORRECTED,
    VOLATILE,
    Handle,
    field_value,
    value,
)

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

#: NVIDIA's Xid catalog (docs.nvidia.com/deploy/xid-errors), for the reason that people read.
_XIDS = {
    48: "double bit ECC error",
    61: "internal micro-controller breakpoint",
    62: "internal micro-controller halt",
    63: "row remapping or page retirement recorded",
    64: "row remapping or page retirement failed",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "high rate of single bit ECC errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "GSP timeout",
    120: "GSP error",
    140: "unrecovered ECC error",
    149: "NVLink error",
    154: "the needed recovery action changed",
}


def hardware_health(handle: Handle) -> tuple[Health, str]:
    """Health by the counters that tell of broken hardware, and the reason; raises `NvmlError`."""
    action = field_value(handle, RECOVERY_ACTION_FIELD)
    if action:
        wanted = _RECOVERY_ACTIONS.get(action, f"recovery action {action}")
        return Health.FAULTY, f"the driver asks to {wanted}"
    rows = value("nvmlDeviceGetRemappedRows", handle)
    if rows and rows[3]:
        return Health.FAULTY, "row remapping failed: the card's memory is worn out, replace it"
    # Volatile counters start again at zero when the GPU is reset.
    errors = value("nvmlDeviceGetTotalEccErrors", handle, UNCORRECTED, VOLATILE)
    if errors:
        return Health.FAULTY, f"{errors} uncorrected ECC errors: reset the GPU"
    return Health.HEALTHY, ""


def xid_reason(xid: int) -> str:
    """What an Xid means, for people."""
    meaning = _XIDS.get(xid, "see NVIDIA's Xid catalog")
    return f"Xid {xid}: {meaning}"

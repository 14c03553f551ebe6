"""What a person can do about NVML's return codes."""

from __future__ import annotations

from nodeagent.inventory.binding import NvmlError
from nodeagent.inventory.source import InventoryError

_ADVICE = {
    1: "this is a fault of the agent: it asked before nvmlInit; restart it and report it",
    4: "run the agent privileged, with the node's /dev",
    8: "connect the power cables of the card",
    9: (
        "load the kernel module (`modprobe nvidia`) and see `dmesg` for NVRM lines; nouveau or"
        " vfio-pci may hold the card, and recent cards need the open kernel module"
    ),
    11: "see `dmesg` for interrupt faults; reboot the node",
    12: "install NVIDIA's driver on the node, or set --driver-root",
    13: "update NVIDIA's driver on the node",
    14: "the card's infoROM is corrupted: have the card replaced",
    15: "reset the GPU or reboot the node; if it comes again, have the card replaced",
    16: (
        "reset the GPU (`nvidia-smi --gpu-reset`, while nothing has it open: this agent has) or"
        " reboot the node"
    ),
    17: "something of the system blocked it (cgroup, SELinux, lockdown): run the agent privileged",
    18: (
        "the driver was updated while its old kernel module is still loaded: reboot the node, or"
        " stop all GPU programs and reload the nvidia modules"
    ),
    20: "free memory on the node",
    999: (
        "access to /dev/nvidia* was often lost to a cgroup change: restart the agent; if it stays,"
        " see `dmesg` for NVRM lines"
    ),
}


def explain(error: NvmlError) -> InventoryError:
    """The error with what to do about it."""
    advice = _ADVICE.get(error.code, "see `dmesg` on the node for NVRM lines")
    return InventoryError(str(error), advice=advice, code=error.code)

"""The GPU itself: on the bus, bound to the right driver, initialised."""

from __future__ import annotations

import re

from doctor import remedies
from doctor.facts.facts import Facts
from doctor.findings import (
    Check,
    Need,
    Result,
    broken,
    not_applicable,
    ok,
    unknown,
    warning,
)

HOST_GPU = frozenset({Need.HOST, Need.GPU})

#: PCI device numbers grow with the architecture (the PCI ID repository, vendor 10de).
FIRST_TURING, FIRST_BLACKWELL = 0x1E00, 0x2900

_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): ([0-9]{1,4})\b")
#: Xids after which the GPU is of no use until a reset; others are an application's, or pass.
_DEADLY = {
    "79": "fell off the bus",
    "119": "its GSP does not answer",
    "120": "its GSP failed",
    "62": "its internal controller halted",
    "95": "uncontained memory error",
    "48": "double-bit memory error",
}
_WORRYING = {
    "63": "a memory page was retired or a row remapped",
    "64": "a memory row could not be remapped",
    "92": "many single-bit memory errors",
    "94": "contained memory error",
    "74": "NVLink error",
    "149": "NVLink error",
    "140": "memory error",
    "154": "a recovery action is asked for",
}


def _present(facts: Facts) -> Result:
    host = facts.host
    if not host.pci_was_read:
        if facts.has_gpu():
            return ok("the PCI bus cannot be seen here; the driver or the cluster tells of GPUs")
        return unknown("/sys/bus/pci/devices could not be read")
    if host.gpus:
        return ok(f"{len(host.gpus)} on the PCI bus: {', '.join(g.bdf for g in host.gpus[:16])}")
    if host.is_wsl or host.is_tegra:
        return ok("WSL or Tegra, whose GPUs are not on the PCI bus")
    expected = "the driver is loaded" if host.driver.version else ""
    expected = expected or ("the cluster has it as a GPU node" if facts.is_gpu_node() else "")
    if not expected:
        return not_applicable("no NVIDIA GPU on the PCI bus; nothing of NVIDIA's is needed here")
    return broken(
        f"no NVIDIA GPU on the PCI bus, yet {expected}",
        "lspci -nn | grep -i nvidia",
        "# a virtual machine: pass the GPU through; real hardware: reseat the card, check power",
        "sudo reboot",
    )


def _on_bus(facts: Facts) -> Result:
    lost = [gpu.bdf for gpu in facts.host.gpus if not gpu.answers]
    if not lost:
        return ok("every GPU answers on the bus")
    return broken(
        f"{', '.join(lost)} answers nothing but ones on the PCI bus",
        "sudo dmesg | grep -E 'NVRM|AER'",
        "sudo reboot",
        "# if it comes again: power supply, riser, temperature, then the card",
    )


def _nouveau(facts: Facts) -> Result:
    bound = [gpu.bdf for gpu in facts.host.gpus if gpu.driver in ("nouveau", "nova", "nova_core")]
    if not bound:
        return ok("no GPU is bound to nouveau")
    return broken(
        f"{', '.join(bound)} is bound to nouveau",
        "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n'"
        " | sudo tee /etc/modprobe.d/disable-nouveau.conf",
        "sudo update-initramfs -u || sudo dracut --force",
        "sudo reboot",
    )


def _vfio(facts: Facts) -> Result:
    bound = [gpu.bdf for gpu in facts.host.gpus if gpu.driver in ("vfio-pci", "pci-stub")]
    if not bound:
        return ok("no GPU is held for virtual machines")
    if len(bound) < len(facts.host.gpus):
        return warning(
            f"{', '.join(bound)} is held for virtual machines; containers get the others only",
            f"# to give it to containers: echo {bound[0]}"
            " | sudo tee /sys/bus/pci/drivers/vfio-pci/unbind",
        )
    return broken(
        f"{', '.join(bound)} is bound to {facts.host.gpus[0].driver}, held for virtual machines",
        "grep -rn 'vfio-pci\\|10de' /etc/modprobe.d /etc/default/grub",
        "# take the card out of ids= there, then",
        "sudo update-initramfs -u && sudo reboot",
    )


def _bound(facts: Facts) -> Result:
    if not facts.host.driver.version:
        return not_applicable("the driver is not loaded")
    idle = [gpu.bdf for gpu in facts.host.gpus if not gpu.driver]
    if not idle:
        return ok("every GPU has a driver")
    return broken(
        f"{', '.join(idle)} has no driver though nvidia is loaded: the module refused it",
        "sudo dmesg | grep -A3 NVRM",
        f"echo {idle[0]} | sudo tee /sys/bus/pci/drivers/nvidia/bind",
    )


def _open_module(facts: Facts) -> Result:
    driver = facts.host.driver
    if not driver.version:
        return not_applicable("the driver is not loaded")
    new = [gpu.bdf for gpu in facts.host.gpus if gpu.device >= FIRST_BLACKWELL]
    refused = any("requires use of the NVIDIA open kernel" in line for line in _log(facts))
    if (new or refused) and not driver.is_open:
        return broken(
            f"the closed module {driver.version} is loaded, and {', '.join(new) or 'the GPU'}"
            " works with the open one only (Blackwell and later)",
            *remedies.install_driver(facts.host, driver.version.partition(".")[0]),
        )
    old = [gpu.bdf for gpu in facts.host.gpus if 0 < gpu.device < FIRST_TURING]
    if old and driver.is_open:
        return broken(
            f"the open module {driver.version} is loaded, and {', '.join(old)} is older than"
            " Turing: it works with the closed one only",
            *remedies.install_driver(facts.host, is_open=False),
        )
    return ok(f"{'open' if driver.is_open else 'closed'} module {driver.version} fits the GPUs")


def _branch(facts: Facts) -> Result:
    version = facts.host.driver.version
    branch = int(version.partition(".")[0] or 0) if version else 0
    if not branch:
        return not_applicable("the driver is not loaded")
    old = [gpu.bdf for gpu in facts.host.gpus if 0 < gpu.device < FIRST_TURING]
    new = [gpu.bdf for gpu in facts.host.gpus if gpu.device >= FIRST_BLACKWELL]
    if branch >= 590 and old:
        return broken(
            f"driver {version} no longer knows {', '.join(old)}: branch 580 is the last one for"
            " Maxwell, Pascal and Volta",
            *remedies.install_driver(facts.host, is_open=False),
        )
    if branch < 570 and new:
        return broken(
            f"driver {version} does not know {', '.join(new)} yet: Blackwell needs 570 or later",
            *remedies.install_driver(facts.host),
        )
    return ok(f"driver {version} knows the GPUs")


def _initialised(facts: Facts) -> Result:
    if facts.host.kernel_log is None:
        return unknown("the kernel's log could not be read", "sudo dmesg | grep NVRM")
    failed = [line for line in _log(facts) if "RmInitAdapter failed" in line]
    if not failed:
        return ok("no failed initialisation in the kernel's log")
    return broken(
        f"the driver could not initialise a GPU: {failed[-1][-160:]}",
        "sudo nvidia-bug-report.sh",
        '# power cables, BIOS setting "Above 4G decoding", firmware of the card; then',
        "sudo reboot",
    )


def _xids(facts: Facts) -> Result:
    if facts.host.kernel_log is None:
        return unknown("the kernel's log could not be read", "sudo dmesg | grep 'NVRM: Xid'")
    seen = {(match[2], match[1]) for line in _log(facts) if (match := _XID.search(line))}
    deadly = sorted((xid, bdf) for xid, bdf in seen if xid in _DEADLY)
    if deadly:
        xid, bdf = deadly[0]
        return broken(
            f"Xid {xid} of {bdf} since the last boot: {_DEADLY[xid]}",
            f"sudo nvidia-smi --gpu-reset -i {bdf}",
            "# if it cannot be reset: drain the node, then",
            "sudo reboot",
        )
    worrying = sorted((xid, bdf) for xid, bdf in seen if xid in _WORRYING)
    if worrying:
        xid, bdf = worrying[0]
        return warning(
            f"Xid {xid} of {bdf} since the last boot: {_WORRYING[xid]}",
            "nvidia-smi -q -d ROW_REMAPPER,ECC,PAGE_RETIREMENT",
        )
    return ok("no Xid of hardware in the kernel's log")


def _log(facts: Facts) -> tuple[str, ...]:
    return facts.host.kernel_log or ()


CHECKS = (
    Check(
        id="gpu-present",
        title="The GPU is on the PCI bus",
        why="without the device there is nothing to drive, whatever is installed",
        look=_present,
        needs=frozenset({Need.HOST}),
    ),
    Check(
        id="gpu-on-bus",
        title="The GPU answers on the bus",
        why="a card that fell off the bus comes back with a reboot only",
        look=_on_bus,
        needs=HOST_GPU,
    ),
    Check(
        id="gpu-nouveau",
        title="nouveau leaves the GPU alone",
        why="a GPU has one kernel driver, and NVIDIA's cannot take it from nouveau",
        look=_nouveau,
        needs=HOST_GPU,
    ),
    Check(
        id="gpu-vfio",
        title="The GPU is not held for virtual machines",
        why="vfio-pci keeps the device for passthrough; the host cannot use it",
        look=_vfio,
        needs=HOST_GPU,
    ),
    Check(
        id="driver-open-module",
        title="The kernel module is of the kind that the GPU needs",
        why="Blackwell works with the open module only, cards before Turing with the closed one;"
        ' the other kind says "No devices were found"',
        look=_open_module,
        needs=HOST_GPU,
    ),
    Check(
        id="driver-branch",
        title="The driver's branch knows the GPU",
        why="each branch supports a range of generations",
        look=_branch,
        needs=HOST_GPU,
    ),
    Check(
        id="gpu-bound",
        title="The driver took every GPU",
        why="a GPU that the module refused appears nowhere, not even in nvidia-smi",
        look=_bound,
        needs=HOST_GPU,
        causes=("gpu-on-bus", "driver-open-module", "driver-branch"),
    ),
    Check(
        id="gpu-initialised",
        title="The driver could initialise the GPU",
        why="NVML then lists no devices, and plugins wait for ever",
        look=_initialised,
        needs=HOST_GPU,
        causes=("gpu-on-bus", "driver-open-module", "driver-branch"),
    ),
    Check(
        id="gpu-xid",
        title="No hardware error since the last boot",
        why="after some errors the GPU hands out failures until it is reset",
        look=_xids,
        needs=HOST_GPU,
        causes=("gpu-on-bus",),
    ),
)

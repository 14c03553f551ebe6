"""NVIDIA's devices on the PCI bus, and its driver: module, device nodes, libraries."""

from __future__ import annotations

import re
from pathlib import Path

from doctor.facts.host import DeviceNode, Driver, PciGpu
from doctor.gather.tree import Tree
from nodeagent.inventory.kernel import driver_version
from nodeagent.inventory.library import FOLDERS, SONAME

_VENDOR = 0x10DE
#: PCI classes: display controllers, and bridges, of which NVSwitches are "other" ones.
_DISPLAY, _NVSWITCH = 0x03, 0x0680
#: What reading a register of a device answers that is no longer there.
_NOTHING = b"\xff\xff\xff\xff"

_PCI = "sys/bus/pci/devices"
_NODES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_LIBRARY_VERSION = re.compile(r"libnvidia-ml\.so\.([0-9]{2,4}(?:\.[0-9]+){1,3})")
_MINOR = re.compile(r"Device Minor:\s*([0-9]{1,4})\b")
_MODULE_FILE = re.compile(r"nvidia\.ko(?:\.(?:xz|zst|gz))?")
#: Below /lib/modules/RELEASE: packages, DKMS, signed packages of Ubuntu, hand-built, Talos.
_MODULE_FOLDERS = (
    "updates/dkms",
    "extra",
    "extra/nvidia",
    "kernel/nvidia",
    "kernel/drivers/video",
    "kernel/drivers/video/nvidia",
    "updates",
    "weak-updates",
    "weak-updates/nvidia",
    "misc",
)
#: The GPU Operator's driver container shows its own root here.
_LIBRARY_ROOTS = ("", "run/nvidia/driver/")


def read_pci(tree: Tree) -> tuple[tuple[PciGpu, ...], int, bool]:
    """Return the GPUs, the number of NVSwitches, and whether the bus could be read."""
    names = tree.names(_PCI)
    if names is None:
        return (), 0, False
    ours = [name for name in names if _number(tree.line(f"{_PCI}/{name}/vendor")) == _VENDOR]
    classes = {name: _number(tree.line(f"{_PCI}/{name}/class")) >> 8 for name in ours}
    gpus = [_gpu(tree, name) for name in ours if classes[name] >> 8 == _DISPLAY]
    switches = sum(kind == _NVSWITCH for kind in classes.values())
    return tuple(gpus), switches, True


def read_driver(tree: Tree) -> Driver:
    """Return what is installed and what is loaded."""
    text = tree.text("proc/driver/nvidia/version") or ""
    library, versions = _libraries(tree)
    return Driver(
        version=_loaded_version(tree.root) if text else "",
        is_open="Open Kernel Module" in text,
        modules=frozenset(
            line.split(" ", 1)[0] for line in (tree.text("proc/modules") or "").splitlines()
        ),
        built_for=frozenset(_kernels_with_module(tree)),
        minors=_minors(tree),
        library=library,
        library_versions=versions,
        nodes=_nodes(tree),
        majors=_majors(tree.text("proc/devices") or ""),
        char_links=any(
            tree.link_name(f"dev/char/{name}").startswith("nvidia")
            for name in tree.names("dev/char") or ()
            if name.startswith("195:")
        ),
    )


def _loaded_version(root: Path) -> str:
    return driver_version(root) or ""


def _gpu(tree: Tree, bdf: str) -> PciGpu:
    folder = f"{_PCI}/{bdf}"
    config = tree.data(f"{folder}/config")
    return PciGpu(
        bdf=bdf,
        device=_number(tree.line(f"{folder}/device")),
        driver=tree.link_name(f"{folder}/driver"),
        answers=config is None or config[:4] != _NOTHING,
    )


def _number(text: str) -> int:
    """Read what sysfs writes as `0x10de`; 0 for anything else."""
    return int(text, 16) if re.fullmatch("0x[0-9a-fA-F]{1,8}", text) else 0


def _kernels_with_module(tree: Tree) -> list[str]:
    return [
        release
        for release in tree.names("lib/modules") or ()
        if any(
            _MODULE_FILE.fullmatch(name)
            for folder in _MODULE_FOLDERS
            for name in tree.names(f"lib/modules/{release}/{folder}") or ()
        )
    ]


def _minors(tree: Tree) -> dict[str, int]:
    """Return the minor number of each GPU that the module drives; -1 where it is not told."""
    found = {}
    for bdf in tree.names("proc/driver/nvidia/gpus") or ():
        match = _MINOR.search(tree.text(f"proc/driver/nvidia/gpus/{bdf}/information") or "")
        found[bdf] = int(match[1]) if match else -1
    return found


def _libraries(tree: Tree) -> tuple[str, frozenset[str]]:
    """Return the path of NVML's library and the versions of all that lie beside such links."""
    library, versions = "", set()
    for folder in (root + folder for root in _LIBRARY_ROOTS for folder in FOLDERS):
        if not tree.exists(f"{folder}/{SONAME}"):
            continue
        library = library or f"/{folder}/{SONAME}"
        found = tree.find(f"{folder}/{SONAME}")
        if found is not None and (match := _LIBRARY_VERSION.fullmatch(found.name)):
            versions.add(match[1])
    return library, frozenset(versions)


def _nodes(tree: Tree) -> dict[str, DeviceNode]:
    names = [
        name
        for name in tree.names("dev") or ()
        if name in _NODES or re.fullmatch("nvidia[0-9]{1,4}", name)
    ]
    numbers = {name: tree.device(f"dev/{name}") for name in names}
    return {
        name: DeviceNode(major=number[0], minor=number[1])
        for name, number in numbers.items()
        if number is not None
    }


def _majors(text: str) -> dict[str, int]:
    """Read the character devices of /proc/devices."""
    found = {}
    for line in text.partition("Block devices")[0].splitlines():
        match = re.fullmatch(r"\s*([0-9]{1,4}) (\S+)", line)
        if match:
            found[match[2]] = int(match[1])
    return found

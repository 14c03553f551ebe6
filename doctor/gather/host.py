"""All facts of one machine, read below its root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from doctor.facts.host import Distribution, Host, Nvml
from doctor.facts.runtime import Runtime
from doctor.gather.cdi import read_cdi
from doctor.gather.containerd import read_containerd
from doctor.gather.crio import read_crio
from doctor.gather.driver import read_driver, read_pci
from doctor.gather.kernel_log import read_kernel_log
from doctor.gather.kubelet import read_kubelet
from doctor.gather.packages import Run, read_versions
from doctor.gather.places import (
    CRIO_CONFIG,
    CRIO_DROP_INS,
    CRIO_SOCKET,
    PLACES,
    Places,
    distribution_of,
    service_of,
)
from doctor.gather.processes import Processes, read_processes
from doctor.gather.toolkit import read_toolkit
from doctor.gather.tree import Tree

#: Tells what is read next, to a person who waits.
Step = Callable[[str], None]
#: Asks NVML below a driver root; None where it was not asked.
Probe = Callable[[Path], Nvml | None]

_FABRIC_MANAGER = "nv-fabricmanage"  # the kernel cuts names after 15 bytes
_PROCESSES = frozenset({"containerd", "crio", _FABRIC_MANAGER})
#: The variable's value is one byte behind four of attributes (UEFI 2.10, 32.3).
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def read_host(tree: Tree, *, probe: Probe, run: Run | None, step: Step) -> Host:
    """Return what can be read; what cannot is in `unreadable`."""
    step("devices and driver")
    gpus, switches, pci_was_read = read_pci(tree)
    driver = read_driver(tree)
    step("processes")
    processes = read_processes(tree, _PROCESSES)
    step("versions of installed packages")
    versions = read_versions(tree, run)
    step("container runtime")
    distribution = distribution_of(tree)
    places = PLACES[distribution]
    runtime = _runtime(tree, places, processes, versions)
    toolkit = read_toolkit(
        tree,
        version=versions.get("toolkit", ()),
        search_path=processes.search_path("crio" if runtime.kind == "cri-o" else "containerd"),
    )
    step("CDI specs and kubelet's folder")
    cdi = read_cdi(tree, runtime.cdi_folders)
    kubelet = read_kubelet(tree, places.kubelet)
    step("the kernel's log")
    kernel_log = read_kernel_log(tree)
    step("NVML, which may take long where a GPU hangs")
    nvml = probe(tree.root) if driver.library else None
    name, family = _system(tree)
    return Host(
        was_read=True,
        os_name=name,
        os_family=family,
        kernel=tree.line("proc/sys/kernel/osrelease"),
        distribution=distribution,
        service=service_of(tree, places) if runtime.kind != "cri-o" else "crio",
        is_wsl=tree.exists("dev/dxg"),
        is_tegra=tree.exists("etc/nv_tegra_release"),
        secure_boot=(tree.data(_SECURE_BOOT) or b"")[4:5] == b"\x01",
        pci_was_read=pci_was_read,
        gpus=gpus,
        nvswitches=switches,
        has_fabric_manager=_FABRIC_MANAGER in processes.by_name,
        driver=driver,
        nvml=nvml,
        kernel_log=kernel_log,
        toolkit=toolkit,
        runtime=runtime,
        cdi=cdi,
        kubelet=kubelet,
        unreadable=dict(tree.unreadable),
    )


def _runtime(
    tree: Tree,
    places: Places,
    processes: Processes,
    versions: dict[str, tuple[int, ...]],
) -> Runtime:
    is_crio = (
        places is PLACES[Distribution.UPSTREAM]
        and not tree.exists(places.config)
        and any(tree.exists(path) for path in (CRIO_CONFIG, CRIO_DROP_INS, CRIO_SOCKET))
    )
    name = "crio" if is_crio else "containerd"
    path = processes.search_path(name)
    if is_crio:
        runtime = read_crio(tree, version=versions.get("cri-o", ()), search_path=path)
    else:
        version = versions.get("containerd", ())
        # Distributions bring their own, whatever the system's packages say.
        version = version if places is PLACES[Distribution.UPSTREAM] else ()
        runtime = read_containerd(tree, places, version=version, search_path=path)
    sockets = (CRIO_SOCKET,) if is_crio else places.sockets
    process = processes.by_name.get(name)
    return replace(
        runtime,
        sockets=tuple(socket for socket in sockets if tree.exists(socket)),
        started_at=process.started_at if process else 0.0,
        path_is_hidden=processes.path_is_hidden(name),
    )


def _system(tree: Tree) -> tuple[str, str]:
    """Return the name of the operating system, and the names of its family."""
    told = {}
    for line in (tree.text("etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        told[key.strip()] = value.strip().strip("\"'")
    family = " ".join((told.get("ID", ""), told.get("ID_LIKE", ""))).strip()
    return told.get("PRETTY_NAME", ""), family

"""Facts of one machine, as its files tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from doctor.facts.runtime import CdiFile, Runtime, Toolkit
from gpus.model import DeviceId, PodUid, ResourceName

#: nvmlReturn_t for no answer in time (NVML_ERROR_TIMEOUT).
NVML_TIMED_OUT = 10


class Distribution(StrEnum):
    """Who brought Kubernetes, because each keeps the same things in other places."""

    K3S = "K3s"
    RKE2 = "RKE2"
    MICROK8S = "MicroK8s"
    K0S = "k0s"
    TALOS = "Talos"
    #: kubeadm and everything that leaves the runtime where its makers put it.
    UPSTREAM = "plain Kubernetes"


@dataclass(frozen=True, slots=True, kw_only=True)
class PciGpu:
    """A display or compute device of NVIDIA's on the PCI bus.

    `driver` is the kernel driver bound to it, empty where there is none. A device that fell off
    the bus answers nothing but ones to reads of its configuration space.
    """

    bdf: str
    device: int
    driver: str = ""
    answers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A file below /dev; the numbers are -1 where it is no character device."""

    major: int = -1
    minor: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """NVIDIA's driver: kernel module, device nodes and libraries.

    `version` is that of the loaded module, `built_for` the kernel releases that have a module
    file, `minors` the minor number of each GPU by PCI address, `library_versions` those of the
    installed libnvidia-ml.so, and `majors` the major numbers by which the kernel knows its parts.
    """

    version: str = ""
    is_open: bool = False
    modules: frozenset[str] = frozenset()
    built_for: frozenset[str] = frozenset()
    minors: Mapping[str, int] = field(default_factory=dict)
    library: str = ""
    library_versions: frozenset[str] = frozenset()
    nodes: Mapping[str, DeviceNode] = field(default_factory=dict)
    majors: Mapping[str, int] = field(default_factory=dict)
    char_links: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvml:
    """What NVML itself answered; `code` is the nvmlReturn_t where it failed, 0 where not."""

    code: int = 0
    text: str = ""
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """Kubelet's plugin folder: sockets in it, and what its checkpoint remembers."""

    folder: str = ""
    has_folder: bool = False
    has_socket: bool = False
    sockets: tuple[str, ...] = ()
    checkpoint_fault: str = ""
    registered: frozenset[ResourceName] = frozenset()
    held: Mapping[ResourceName, Mapping[DeviceId, PodUid]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Everything read below one root; `was_read` is false where no root was looked at.

    `kernel_log` holds NVIDIA's lines since the last boot, None where the log could not be read.
    `kubernetes_started` and the times in `runtime` are seconds since 1970.
    """

    was_read: bool = False
    os_name: str = ""
    os_family: str = ""
    kernel: str = ""
    distribution: Distribution = Distribution.UPSTREAM
    service: str = ""
    is_wsl: bool = False
    is_tegra: bool = False
    secure_boot: bool = False
    pci_was_read: bool = False
    gpus: tuple[PciGpu, ...] = ()
    nvswitches: int = 0
    has_fabric_manager: bool = False
    driver: Driver = field(default_factory=Driver)
    nvml: Nvml | None = None
    kernel_log: tuple[str, ...] | None = None
    toolkit: Toolkit = field(default_factory=Toolkit)
    runtime: Runtime = field(default_factory=Runtime)
    cdi: tuple[CdiFile, ...] = ()
    kubelet: Kubelet = field(default_factory=Kubelet)
    unreadable: Mapping[str, str] = field(default_factory=dict)

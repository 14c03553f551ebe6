"""What a container gets for the devices that kubelet chose. Pure; the wire is `server`'s matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gpus.model import DeviceId
from nodeagent.deviceplugin.devices import Offer, device_of
from nodeagent.deviceplugin.driver_files import HostFile

#: Read by the NVIDIA container runtime; needs the `nvidia` RuntimeClass or default runtime.
VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"


class DeviceList(StrEnum):
    """How devices are handed over: as CDI names to the runtime, or as an environment variable."""

    CDI = "cdi"
    ENV = "env"


class Refused(ValueError):
    """What kubelet asks for cannot be given; the text reaches the pod's status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The answer for one container."""

    envs: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: tuple[str, ...] = ()
    device_nodes: tuple[HostFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """How devices are handed over now.

    `cdi_names` holds the fully qualified names of those devices that the CDI spec on disk
    describes; a device without one is handed over by variable, whatever `device_list` says,
    because a name that the runtime cannot resolve keeps the container from starting. `variable` is
    false where nobody would read that. `nodes` are the device nodes that go with the variable,
    where kubelet's CPU manager must know of them (passDeviceSpecs). `trouble` tells why the way
    taken is not the best one, `broken` why none works now; then nothing is given out.
    """

    device_list: DeviceList
    cdi_names: Mapping[DeviceId, str] = field(default_factory=dict)
    nodes: Mapping[DeviceId, tuple[HostFile, ...]] = field(default_factory=dict)
    variable: bool = True
    trouble: str = ""
    broken: str = ""


def allocate(asked: Sequence[str], *, offer: Offer, handover: Handover) -> Allocation:
    """Return what one container needs for the devices in `asked`; raises `Refused`."""
    known = {device.id for device in offer.devices}
    if unknown := [device for device in asked if device not in known]:
        raise Refused(f"devices not known to this plugin: {', '.join(unknown)}")
    if offer.one_at_a_time and len(asked) > 1:
        raise Refused(
            f"{offer.resource}: {len(asked)} asked for, but GPUs are shared by time-slicing and a "
            "container may ask for 1: more would not be a larger share"
        )
    if handover.broken:
        raise Refused(handover.broken)
    devices = list(dict.fromkeys(map(device_of, asked)))
    names = tuple(handover.cdi_names.get(device, "") for device in devices)
    if handover.device_list is DeviceList.CDI and all(names):
        return Allocation(cdi_devices=names)
    if not handover.variable:
        unknown = [device for device, name in zip(devices, names, strict=True) if not name]
        raise Refused(f"the CDI spec does not describe {', '.join(unknown)}: no device nodes found")
    nodes = dict.fromkeys(node for device in devices for node in handover.nodes.get(device, ()))
    return Allocation(envs={VISIBLE_DEVICES: ",".join(devices)}, device_nodes=tuple(nodes))

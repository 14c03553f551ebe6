"""What a container gets for the devices that kubelet chose. Pure; the wire is `server`'s matter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gpus.model import DeviceId

#: Read by the NVIDIA container runtime; needs the `nvidia` RuntimeClass or default runtime.
VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"


class DeviceList(StrEnum):
    """How devices are handed over: as CDI names to the runtime, or as an environment variable."""

    CDI = "cdi"
    ENV = "env"


class UnknownDevice(ValueError):
    """Kubelet asks for a device that is not, or no longer, in the list that it was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The answer for one container."""

    envs: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """How devices are handed over now.

    `cdi_names` holds the fully qualified names of those devices that the CDI spec on disk
    describes; a device without one is handed over by variable, whatever `device_list` says,
    because a name that the runtime cannot resolve keeps the container from starting.
    """

    device_list: DeviceList
    cdi_names: Mapping[DeviceId, str] = field(default_factory=dict)


def allocate(
    asked: Sequence[str], *, known: Collection[DeviceId], handover: Handover
) -> Allocation:
    """Return what one container needs for the devices in `asked`; raises `UnknownDevice`."""
    devices = [DeviceId(device) for device in dict.fromkeys(asked)]
    if unknown := [device for device in devices if device not in known]:
        raise UnknownDevice(f"devices not known to this plugin: {', '.join(unknown)}")
    names = tuple(handover.cdi_names.get(device, "") for device in devices)
    if handover.device_list is DeviceList.CDI and all(names):
        return Allocation(cdi_devices=names)
    return Allocation(envs={VISIBLE_DEVICES: ",".join(devices)})

"""Kubelet's device manager checkpoint: what it remembers of plugins, and who holds what by UID.

The file is kubelet's own and not a published API (pkg/kubelet/cm/devicemanager/checkpoint, the same
since 1.20). It is read, never written. It says two things that the pod resources API does not:
which resources kubelet would still refuse or write back into node status, and the UIDs of pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gpus.model import DeviceId, PodUid, ResourceName

FILE_NAME = "kubelet_internal_checkpoint"
#: Far above any real one: every container with a device takes about one KiB.
_MAX_SIZE = 32 << 20


class CheckpointError(Exception):
    """The file is there and cannot be read or understood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What kubelet's device manager has written down.

    `held` may still name pods that ended: kubelet rewrites the file at the next allocation only.
    """

    registered: frozenset[ResourceName] = frozenset()
    held: Mapping[ResourceName, Mapping[DeviceId, PodUid]]


class _Entry(msgspec.Struct):
    pod_uid: str = msgspec.field(name="PodUID")
    resource: str = msgspec.field(name="ResourceName")
    devices: dict[str, list[str]] | None = msgspec.field(name="DeviceIDs", default=None)


class _Data(msgspec.Struct):
    entries: list[_Entry] | None = msgspec.field(name="PodDeviceEntries", default=None)
    registered: dict[str, list[str] | None] | None = msgspec.field(
        name="RegisteredDevices", default=None
    )


class _File(msgspec.Struct):
    data: _Data = msgspec.field(name="Data")


def read_checkpoint(plugin_folder: Path) -> Checkpoint | None:
    """Return what the checkpoint in kubelet's plugin folder says, None where there is none.

    Raises `CheckpointError`.
    """
    path = plugin_folder / FILE_NAME
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(str(error)) from error
    try:
        data = msgspec.json.decode(text, type=_File).data
    except (msgspec.DecodeError, UnicodeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    held: dict[ResourceName, dict[DeviceId, PodUid]] = {}
    for entry in data.entries or ():
        of_resource = held.setdefault(ResourceName(entry.resource), {})
        for devices in (entry.devices or {}).values():  # keyed by NUMA node
            of_resource.update({DeviceId(device): PodUid(entry.pod_uid) for device in devices})
    return Checkpoint(registered=frozenset(map(ResourceName, data.registered or ())), held=held)

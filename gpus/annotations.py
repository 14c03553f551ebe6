"""The contract on Kubernetes objects: names of labels and annotations, and their encoding.

Every structured value is compact JSON whose first member is `"v":1`. Unknown versions are refused,
never guessed. The order of members is part of the contract: the fencing policy compares the start
of `assigned` as text, because CEL cannot parse JSON (`assigned_prefix`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec

from gpus.model import (
    Assignment,
    DeviceId,
    Gpu,
    Health,
    Link,
    MigInstance,
    NodeInventory,
    PcieLevel,
    PodUid,
    Source,
    Withheld,
)
from kube.wire import decoder

PREFIX = "gpudetour.io/"

#: Label on nodes with GPUs and on pods that ask for them; its value is always `GPU_LABEL_VALUE`.
GPU_LABEL = PREFIX + "gpu"
GPU_LABEL_VALUE = "true"
#: Label on nodes for each model of GPU there, whose value is how many; the model's name follows.
PRODUCT_LABEL_PREFIX = PREFIX + "product."
#: What selects them in a list or a watch.
GPU_SELECTOR = f"{GPU_LABEL}={GPU_LABEL_VALUE}"

# Node annotations, written by that node's agent only.
INVENTORY = PREFIX + "inventory"
IN_USE = PREFIX + "in-use"
PATH = PREFIX + "path"
PATH_REASON = PREFIX + "path-reason"
SUMMARY = PREFIX + "summary"

#: Node label by which an admin asks for a path; the only value with a meaning is `annotation`.
PATH_WISH_LABEL = PREFIX + "path"
#: Node condition that the agent keeps.
PATH_CONDITION = "GPUPathHealthy"

# Pod annotations. The webhook writes the first, the extender's Binding the second.
DEVICES_FROM = PREFIX + "devices-from"
ASSIGNED = PREFIX + "assigned"

# Pod annotations by which users narrow which GPUs they get (`gpus.wishes`).
PRODUCT = PREFIX + "product"
UUID = PREFIX + "uuid"
EXCLUDE_UUID = PREFIX + "exclude-uuid"
MIN_MEMORY = PREFIX + "min-memory"
MIN_COMPUTE = PREFIX + "min-compute"
TOPOLOGY = PREFIX + "topology"
POLICY = PREFIX + "policy"
WISHES = (PRODUCT, UUID, EXCLUDE_UUID, MIN_MEMORY, MIN_COMPUTE, TOPOLOGY, POLICY)
#: Every annotation of ours that a pod may have.
POD_ANNOTATIONS = frozenset({DEVICES_FROM, ASSIGNED, *WISHES})

#: Annotation of that ConfigMap: the node whose devices it tells.
ASSIGNED_NODE = PREFIX + "node"
#: Annotation of the extender's ServiceAccount: the epoch that the fencing policy lets through.
EPOCH = PREFIX + "epoch"

#: Prefix of the ConfigMap that hands the assignment of one pod to its containers.
DEVICES_CONFIG_MAP_PREFIX = "gpudetour-devices-"
#: A name that the webhook may have generated; anything else in `devices-from` is replaced.
DEVICES_CONFIG_MAP_NAME = re.compile(DEVICES_CONFIG_MAP_PREFIX + r"[a-z0-9]{20}")

VERSION = 1

#: What NVML and the container toolkit accept as a device name: `GPU-…`, `MIG-…`, `MIG-GPU-…/1/0`.
#: Never a word that the toolkit reads as more than one device, such as `all`, nor an index.
_DEVICE_ID = re.compile(r"(?:GPU|MIG)-[A-Za-z0-9._:/-]{1,124}")
#: Holders may be devices of a foreign plugin, which names them as it likes.
_HELD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_Wire = TypeVar("_Wire", bound="_Versioned")


class AnnotationError(ValueError):
    """A value of ours that cannot be trusted: not JSON, of another version, or inconsistent."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(f"annotation {key}: {detail}")
        self.key = key
        self.detail = detail


class _Versioned(msgspec.Struct, rename="camel", omit_defaults=True):
    v: _Int32


class _Link(msgspec.Struct, rename="camel", omit_defaults=True):
    nvlinks: _Count = 0
    pcie: PcieLevel | None = None


class _Mig(msgspec.Struct, rename="camel", omit_defaults=True):
    uuid: str
    profile: str
    memory: _Bytes | None = None


class _Gpu(msgspec.Struct, rename="camel", omit_defaults=True):
    uuid: str
    index: _Count
    minor: _Int32 | None = None
    bdf: str | None = None
    product: str | None = None
    memory: _Bytes | None = None
    compute_capability: str | None = None
    architecture: str | None = None
    numa_node: _Int32 | None = None
    health: Health = Health.HEALTHY
    health_reason: str = ""
    since: _Moment | None = None
    display: bool | None = None
    pci_class: _Count | None = None
    mig_capable: bool | None = None
    #: Keyed by the peer's index: UUIDs would double the size of an eight-GPU inventory.
    links: dict[_Count, _Link] = {}
    mig_enabled: bool = False
    mig: list[_Mig] = []


class _Withheld(msgspec.Struct, rename="camel", omit_defaults=True):
    reason: str
    index: _Count | None = None
    bdf: str | None = None
    uuid: str | None = None
    product: str | None = None


class _Inventory(_Versioned):
    """Readers of the first release know neither what stands behind `gpus` nor `since` to
    `mig_capable` of a GPU, and pass over them.
    """

    source: Source
    driver: str | None = None
    cuda: str | None = None
    gpus: list[_Gpu] = []
    withheld: list[_Withheld] = []
    trouble: str = ""
    boot: str | None = None
    machine: str | None = None


class _InUse(_Versioned):
    holders: dict[str, str]


class _Assigned(_Versioned):
    #: `leaseTransitions` is an int32.
    epoch: _Count
    containers: dict[str, list[str]]
    share: _Bytes = 0


def encode_inventory(inventory: NodeInventory) -> str:
    """Write an inventory as the node annotation `inventory`; memory is in bytes."""
    index_of = {gpu.uuid: gpu.index for gpu in inventory.gpus}
    return _encode(
        _Inventory(
            v=VERSION,
            source=inventory.source,
            driver=inventory.driver,
            cuda=inventory.cuda,
            gpus=[_gpu_to_wire(gpu, index_of) for gpu in inventory.gpus],
            withheld=[
                _Withheld(reason=w.reason, index=w.index, bdf=w.bdf, uuid=w.uuid, product=w.product)
                for w in inventory.withheld
            ],
            trouble=inventory.trouble,
            boot=inventory.boot,
            machine=inventory.machine,
        )
    )


def decode_inventory(text: str) -> NodeInventory:
    """Read the node annotation `inventory`; raises `AnnotationError`."""
    wire = _decode(text, _Inventory, key=INVENTORY)
    by_index = {gpu.index: _device(gpu.uuid, key=INVENTORY) for gpu in wire.gpus}
    if len(by_index) != len(wire.gpus):
        raise AnnotationError(INVENTORY, "two GPUs have the same index")
    inventory = NodeInventory(
        source=wire.source,
        driver=wire.driver,
        cuda=wire.cuda,
        gpus=tuple(_gpu_from_wire(gpu, by_index) for gpu in wire.gpus),
        withheld=tuple(_withheld_from_wire(withheld) for withheld in wire.withheld),
        trouble=wire.trouble,
        boot=wire.boot,
        machine=wire.machine,
    )
    ids = [gpu.uuid for gpu in inventory.gpus]
    ids += [instance.uuid for gpu in inventory.gpus for instance in gpu.mig]
    if len(set(ids)) != len(ids):
        raise AnnotationError(INVENTORY, "two devices have the same UUID")
    return inventory


def encode_in_use(holders: Mapping[DeviceId, PodUid]) -> str:
    """Write the observed holders (device to pod UID) as the node annotation `in-use`."""
    return _encode(_InUse(v=VERSION, holders={str(k): str(holders[k]) for k in sorted(holders)}))


def decode_in_use(text: str) -> dict[DeviceId, PodUid]:
    """Read the node annotation `in-use`; raises `AnnotationError`."""
    wire = _decode(text, _InUse, key=IN_USE)
    if strange := [device for device in wire.holders if not is_holder_id(device)]:
        raise AnnotationError(IN_USE, f"{strange[0][:64]!r} is not a device ID")
    return {DeviceId(device): PodUid(uid) for device, uid in wire.holders.items()}


def assigned_prefix(epoch: int | str) -> str:
    """Return the text with which `assigned` of that epoch starts; the fencing policy compares it.

    The policy gpudetour-fence builds the same text in CEL from the annotation `epoch`.
    """
    return f'{{"v":{VERSION},"epoch":{epoch},'


def encode_assigned(assignment: Assignment) -> str:
    """Write an assignment as the pod annotation `assigned`."""
    wire = _Assigned(
        v=VERSION,
        epoch=assignment.epoch,
        containers={name: list(devices) for name, devices in assignment.containers.items()},
        share=assignment.share_bytes,
    )
    return _encode(wire)


def decode_assigned(text: str) -> Assignment:
    """Read the pod annotation `assigned`; raises `AnnotationError`."""
    wire = _decode(text, _Assigned, key=ASSIGNED)
    containers = {
        name: tuple(_device(device, key=ASSIGNED) for device in devices)
        for name, devices in wire.containers.items()
    }
    for name, devices in containers.items():
        if len(set(devices)) != len(devices):
            raise AnnotationError(ASSIGNED, f"container {name[:64]!r} names a device twice")
    assignment = Assignment(epoch=wire.epoch, containers=containers, share_bytes=wire.share)
    if wire.share and not _of_one_gpu(assignment):
        raise AnnotationError(ASSIGNED, "a share is of one whole GPU, the same for all containers")
    return assignment


def is_device_id(text: str) -> bool:
    """Tell whether NVML and the container toolkit would read the text as one device."""
    return _DEVICE_ID.fullmatch(text) is not None


def is_holder_id(text: str) -> bool:
    """Tell whether `in-use` may name a device so, be it of a plugin that is not ours."""
    return _HELD_ID.fullmatch(text) is not None


def _of_one_gpu(assignment: Assignment) -> bool:
    devices = assignment.devices()
    return (
        len(devices) == 1
        and all(assignment.containers.values())
        and not any(device.startswith("MIG-") for device in devices)
    )


def _gpu_to_wire(gpu: Gpu, index_of: Mapping[DeviceId, int]) -> _Gpu:
    return _Gpu(
        uuid=gpu.uuid,
        index=gpu.index,
        minor=gpu.minor,
        bdf=gpu.bdf,
        product=gpu.product,
        memory=gpu.memory_bytes,
        compute_capability=(
            "{}.{}".format(*gpu.compute_capability) if gpu.compute_capability else None
        ),
        architecture=gpu.architecture,
        numa_node=gpu.numa_node,
        health=gpu.health,
        health_reason=gpu.health_reason,
        since=gpu.health_since,
        display=gpu.display,
        pci_class=gpu.pci_class,
        mig_capable=gpu.mig_capable,
        links={
            index_of[link.peer]: _Link(nvlinks=link.nvlinks, pcie=link.pcie)
            for link in gpu.links
            if link.peer in index_of
        },
        mig_enabled=gpu.mig_enabled,
        mig=[_Mig(uuid=m.uuid, profile=m.profile, memory=m.memory_bytes) for m in gpu.mig],
    )


def _gpu_from_wire(wire: _Gpu, by_index: Mapping[int, DeviceId]) -> Gpu:
    if unknown := set(wire.links) - (set(by_index) - {wire.index}):
        detail = f"GPU {wire.index} links to {min(unknown)}, which is no other GPU of this node"
        raise AnnotationError(INVENTORY, detail)
    return Gpu(
        uuid=DeviceId(wire.uuid),
        index=wire.index,
        minor=wire.minor,
        bdf=wire.bdf,
        product=wire.product,
        memory_bytes=wire.memory,
        compute_capability=_compute_capability(wire.compute_capability),
        architecture=wire.architecture,
        numa_node=wire.numa_node,
        health=wire.health,
        health_reason=wire.health_reason,
        health_since=wire.since,
        display=wire.display,
        pci_class=wire.pci_class,
        mig_capable=wire.mig_capable,
        links=tuple(
            Link(peer=by_index[index], nvlinks=link.nvlinks, pcie=link.pcie)
            for index, link in wire.links.items()
        ),
        mig_enabled=wire.mig_enabled,
        mig=tuple(
            MigInstance(
                uuid=_device(m.uuid, key=INVENTORY), profile=m.profile, memory_bytes=m.memory
            )
            for m in wire.mig
        ),
    )


def _withheld_from_wire(wire: _Withheld) -> Withheld:
    return Withheld(
        reason=wire.reason,
        index=wire.index,
        bdf=wire.bdf,
        uuid=_device(wire.uuid, key=INVENTORY) if wire.uuid is not None else None,
        product=wire.product,
    )


def _compute_capability(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})", text, re.ASCII)
    if match is None:
        raise AnnotationError(INVENTORY, f"compute capability {text!r} is not MAJOR.MINOR")
    return int(match[1]), int(match[2])


def _device(text: str, *, key: str) -> DeviceId:
    if not is_device_id(text):
        raise AnnotationError(key, f"{text[:64]!r} is not a device UUID")
    return DeviceId(text)


def _encode(wire: _Versioned) -> str:
    return msgspec.json.encode(wire).decode()


def _decode(text: str, wire: type[_Wire], *, key: str) -> _Wire:
    try:
        version = decoder(_Versioned).decode(text).v
        if version != VERSION:
            raise AnnotationError(
                key, f"version {version} is not known to this release, which reads {VERSION}"
            )
        return decoder(wire).decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise AnnotationError(key, str(error)) from error

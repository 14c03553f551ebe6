"""What a Node object says about GPUs, read once per change.

Garbage is not an error here but a fact: a node whose inventory cannot be read has nothing to give.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import gpus.annotations as contract
from extender.placement.devices import Devices, devices_of
from extender.placement.facts import NodeFacts
from extender.placement.layout import Layouts
from extender.placement.reasons import Reason
from gpus.annotations import AnnotationError
from gpus.demand import is_gpu_resource
from gpus.model import DeviceId, Path, PodUid, ResourceName
from gpus.quantity import QuantityError, whole
from kube.objects import Node, Quantity

#: Bytes of a digest. Texts are not kept: they are most of what a node says, and only ever compared.
_DIGEST = 16


def read_node(node: Node, *, layouts: Layouts, previous: NodeFacts | None = None) -> NodeFacts:
    """Read a Node; returns `previous` itself when nothing that matters changed."""
    texts = node.metadata.annotations or {}
    capacity, allocatable = _gpus(node.status.capacity), _gpus(node.status.allocatable)
    drawn = _digest(texts.get(contract.INVENTORY))
    source = _digest(
        texts.get(contract.PATH), texts.get(contract.IN_USE), drawn, capacity, allocatable
    )
    if previous is not None and previous.source == source:
        return previous
    if contract.PATH not in texts:
        return NodeFacts(source=source, blocked=_silent(capacity))
    try:
        path = Path(texts[contract.PATH])
        if path not in (Path.PLUGIN, Path.ANNOTATION):
            return NodeFacts(source=source, path=path, blocked=Reason.PATH_CHANGING)
        in_use = _in_use(texts)
        known = previous.devices if previous is not None else None
        devices = known if known is not None and known.digest == drawn else None
        if path is Path.PLUGIN:
            return NodeFacts(
                source=source,
                path=path,
                total=_whole(capacity),
                healthy=_whole(allocatable),
                devices=devices or _if_readable(texts, drawn, layouts),
                in_use=in_use,
            )
        devices = devices or _read(texts, drawn, layouts)
        return NodeFacts(
            source=source,
            path=path,
            total=devices.layout.total,
            healthy=devices.layout.able,
            devices=devices,
            in_use=in_use,
        )
    except (AnnotationError, QuantityError, ValueError):
        return NodeFacts(source=source, blocked=Reason.NO_INVENTORY)


def _read(texts: Mapping[str, str], digest: bytes, layouts: Layouts) -> Devices:
    if contract.INVENTORY not in texts:
        raise AnnotationError(contract.INVENTORY, "it is missing")
    inventory = contract.decode_inventory(texts[contract.INVENTORY])
    return devices_of(inventory, digest=digest, layouts=layouts)


def _if_readable(texts: Mapping[str, str], digest: bytes, layouts: Layouts) -> Devices | None:
    """Read the inventory where kubelet's counts do without: only wishes need it there."""
    try:
        return _read(texts, digest, layouts)
    except AnnotationError:
        return None


def _silent(capacity: Mapping[str, Quantity]) -> Reason:
    """Why a node has nothing to give on which no agent has spoken (yet)."""
    return Reason.NO_INVENTORY if capacity else Reason.NO_GPU


def _in_use(texts: Mapping[str, str]) -> Mapping[DeviceId, PodUid]:
    text = texts.get(contract.IN_USE)
    return contract.decode_in_use(text) if text is not None else {}


def _gpus(resources: Mapping[str, Quantity] | None) -> dict[str, Quantity]:
    return {name: count for name, count in (resources or {}).items() if is_gpu_resource(name)}


def _whole(resources: Mapping[str, Quantity]) -> dict[ResourceName, int]:
    return {ResourceName(name): whole(quantity) for name, quantity in resources.items()}


def _digest(*parts: object) -> bytes:
    return blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=_DIGEST).digest()

"""What Nodes say that placement has no use for and people have: why a GPU failed, the driver.

The ledger keeps nodes of one model as one (`extender.placement.layout`); here each has its own.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b

import gpus.annotations as contract
from extender.placement.devices import Devices, devices_of
from extender.placement.layout import Layouts
from gpus.annotations import AnnotationError
from gpus.model import DeviceId, NodeInventory, NodeName, Withheld
from kube.objects import Node
from kube.reflector import Event, EventKind

#: Characters of a text that anybody may have written into an annotation.
_LONGEST = 300
_DIGEST = 16
_READY = "Ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a GPU is not healthy, and since when."""

    reason: str
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What one Node says; texts are cut to a bearable length.

    `devices` is there wherever the inventory can be read, whatever the node's path. `buses` are the
    PCI addresses of its cards.
    """

    drawn: bytes = b""
    devices: Devices | None = None
    buses: tuple[str, ...] = ()
    faults: Mapping[DeviceId, Fault] = field(default_factory=dict)
    withheld: tuple[Withheld, ...] = ()
    driver: str = ""
    cuda: str = ""
    source: str = ""
    trouble: str = ""
    path_reason: str = ""
    ready: bool = True
    cordoned: bool = False


_NOTHING = Note()


class Notes:
    """Keeps a note of each node. Read from any thread; `on_node` is for the watch of nodes."""

    def __init__(self) -> None:
        self._layouts = Layouts()
        self._lock = threading.Lock()  # guards the rest
        self._notes: dict[NodeName, Note] = {}
        self._touched: set[NodeName] = set()

    def on_node(self, event: Event[Node]) -> None:
        """Fold one event of the Node watch in."""
        name = NodeName(event.object.metadata.name)
        known = self.of(name)
        note = None if event.kind is EventKind.DELETED else self._read(event.object, known)
        if note == known:
            return
        with self._lock:
            self._touched.add(name)
            if note is None:
                self._notes.pop(name, None)
            else:
                self._notes[name] = note

    def of(self, name: NodeName) -> Note:
        """Return what a node says; of one that is not known, nothing."""
        return self._notes.get(name, _NOTHING)

    def touched(self) -> set[NodeName]:
        """Return the nodes whose note changed since this was asked last."""
        with self._lock:
            touched, self._touched = self._touched, set()
        return touched

    def _read(self, node: Node, known: Note) -> Note:
        texts = node.metadata.annotations or {}
        return replace(
            self._drawn(texts.get(contract.INVENTORY, ""), known),
            path_reason=shortened(texts.get(contract.PATH_REASON, "")),
            ready=all(c.status == "True" for c in node.status.conditions or () if c.type == _READY),
            cordoned=node.spec.unschedulable,
        )

    def _drawn(self, text: str, known: Note) -> Note:
        """Return what an inventory says; read only where it is not that of before."""
        drawn = blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()
        if drawn == known.drawn:
            return known
        try:
            inventory = contract.decode_inventory(text)
        except AnnotationError:
            return Note(drawn=drawn)
        devices = devices_of(inventory, digest=drawn, layouts=self._layouts)
        return replace(_of_inventory(inventory, devices), drawn=drawn)


def _of_inventory(inventory: NodeInventory, devices: Devices) -> Note:
    return Note(
        devices=devices,
        buses=tuple(shortened(gpu.bdf or "") for gpu in inventory.gpus),
        faults={
            gpu.uuid: Fault(reason=shortened(gpu.health_reason), since=gpu.health_since)
            for gpu in inventory.gpus
            if gpu.health_reason or gpu.health_since is not None
        },
        withheld=inventory.withheld,
        driver=shortened(inventory.driver or ""),
        cuda=shortened(inventory.cuda or ""),
        source=inventory.source.value,
        trouble=shortened(inventory.trouble),
    )


def shortened(text: str) -> str:
    """Return a text of at most so many characters as fit where it is shown."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"

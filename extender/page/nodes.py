"""One node as the page shows it: a cell for each device, with its state and its holders. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from extender.page.holders import Holder, Holders, Stage, holders_of
from extender.page.notes import Note, shortened
from extender.placement.devices import Devices
from extender.placement.facts import NodeFacts
from extender.placement.reasons import Reason
from extender.placement.state import NodeState, state_of
from gpus.model import DeviceId, Health, Path

#: A node on which nobody holds what is not named.
_UNSEEN = NodeFacts(source=b"", blocked=Reason.NO_INVENTORY)


class CellState(StrEnum):
    """What a device is to somebody who looks for a free one; a sick one shows that first."""

    FREE = "free"
    HELD = "held"
    #: Pods have parts of it, by memory or in turns.
    SHARED = "shared"
    #: Somebody was just promised it.
    KEPT = "kept"
    FAULTY = "faulty"
    LOST = "lost"
    UNMONITORED = "unmonitored"
    #: It cannot be said who has it.
    UNKNOWN = "unknown"
    #: The node has it and does not give it out.
    WITHHELD = "withheld"


class Cell(Struct, frozen=True, omit_defaults=True):
    """A device: card `gpu`, or the MIG instance of that `profile`.

    `product` is there where it is not the node's; `used` is how much of 100 is given away in
    shares.
    """

    gpu: int | None
    state: CellState
    profile: str = ""
    product: str = ""
    used: int = 0
    holders: Sequence[Holder] = ()


class NodeView(Struct, frozen=True, omit_defaults=True):
    """A node. `why` tells why nothing, or not everything, can be given out there."""

    name: str
    path: str = ""
    why: str = ""
    product: str = ""
    free: int = 0
    total: int = 0
    ready: bool = True
    cordoned: bool = False
    cells: Sequence[Cell] = ()


def node_view(name: str, state: NodeState, note: Note, *, leading: bool) -> NodeView | None:
    """Return what to show of a node; None where it has nothing to do with GPUs.

    Who does not lead knows no pods: then only what kubelet says counts, and nothing is free.
    """
    facts = state.facts or _UNSEEN
    if not leading:
        state = state_of(facts=state.facts, pods={}, reserved={}, holds={}, ended=state.ended)
    if facts.blocked is Reason.NO_GPU and not (state.pods or note.devices or note.withheld):
        return None
    devices = note.devices
    product = shortened(_first_product(note)) if devices is not None else ""
    cells: list[Cell] = []
    if devices is not None:
        cells += _cells(state, facts, devices, product=product, leading=leading)
    cells += [
        Cell(
            gpu=one.index,
            state=CellState.WITHHELD,
            product="" if one.product == product else shortened(one.product or ""),
        )
        for one in note.withheld
    ]
    return NodeView(
        name=name,
        path=facts.path or "",
        why=_why(state, note),
        product=product,
        free=_free(state, facts, cells, leading=leading),
        total=sum(cell.state is not CellState.WITHHELD for cell in cells)
        or sum(facts.total.values()),
        ready=note.ready,
        cordoned=note.cordoned,
        cells=cells,
    )


def _first_product(note: Note) -> str:
    cards = note.devices.layout.cards if note.devices is not None else ()
    return next((card.product for card in cards if card.product), "")


def _why(state: NodeState, note: Note) -> str:
    if state.blocked is None:
        return ""
    text = state.blocked.text
    return f"{text}: {note.path_reason}" if note.path_reason else text


def _free(state: NodeState, facts: NodeFacts, cells: Sequence[Cell], *, leading: bool) -> int:
    if not leading:
        return 0
    if facts.path is Path.PLUGIN:
        return sum(state.free.values())
    return sum(cell.state is CellState.FREE for cell in cells)


def _cells(
    state: NodeState, facts: NodeFacts, devices: Devices, *, product: str, leading: bool
) -> Iterator[Cell]:
    holders = holders_of(state, facts, devices)
    free = _free_ones(state, facts, devices, holders) if leading else frozenset()
    layout = devices.layout
    for device, slot in zip(devices.ids, layout.slots, strict=True):
        card, had = layout.cards[slot.card], holders.get(device, ())
        shown = "" if card.product == product else shortened(card.product or "")
        given = sum(holder.share for holder in had)
        cut = next((m.profile for m in card.mig if m.resource == slot.resource), "")
        yield Cell(
            gpu=card.index,
            state=_cell_state(card.health, had, free=device in free),
            profile=shortened(cut) if card.mig_enabled else "",
            product=shown,
            used=min(100, 100 * given // slot.memory) if slot.memory else 0,
            holders=had,
        )


def _cell_state(health: Health, holders: Sequence[Holder], *, free: bool) -> CellState:
    if health is not Health.HEALTHY:
        return CellState(health.value)
    firm = [holder for holder in holders if holder.stage is not Stage.KEPT]
    if firm:
        parts = all(holder.share or holder.turn for holder in firm)
        return CellState.SHARED if parts else CellState.HELD
    if holders:
        return CellState.KEPT
    return CellState.FREE if free else CellState.UNKNOWN


def _free_ones(
    state: NodeState, facts: NodeFacts, devices: Devices, holders: Holders
) -> frozenset[DeviceId]:
    """Return the devices that a new pod may get.

    Kubelet counts, and tells a little later which ones it gave out: only while as many are free as
    nobody is seen to have, each of those is free.
    """
    if state.blocked is not None:
        return frozenset()
    if facts.path is Path.ANNOTATION and facts.devices is not None:
        return frozenset(facts.devices.names(state.open))
    well = devices.names(devices.layout.healthy)
    unnamed = frozenset(device for device in well if device not in holders)
    return unnamed if sum(state.free.values()) >= len(unnamed) else frozenset()

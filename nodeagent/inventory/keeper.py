"""Keeps the inventory of the node: the best source that answers, what was known before, what was
reported in between, and what the admin wants to be given out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from gpus.model import DeviceId, Gpu, NodeInventory, Source, Withheld
from nodeagent.inventory import kernel
from nodeagent.inventory.choice import Choice
from nodeagent.inventory.events import XidEvent
from nodeagent.inventory.memory import Memory
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.pci import PciBus, PciGpu
from nodeagent.inventory.proc import ProcSource
from nodeagent.inventory.smi import SmiSource
from nodeagent.inventory.source import InventoryError, Survey, SurveySource
from nodeagent.inventory.standing import HoldDown, Moment
from nodeagent.inventory.xids import HealthPolicy, xid_reason

#: Characters of a driver's text that are published.
_MOST_TEXT = 240

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an admin can decide about GPUs. `hold_down` is how long a failed one is kept back."""

    choice: Choice = field(default_factory=Choice)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    hold_down: HoldDown = field(default_factory=HoldDown)


class InventoryKeeper:
    """Reads the GPUs of this node; `read` is for one thread, `report` and `recall` for any."""

    def __init__(
        self,
        sources: Sequence[SurveySource],
        bus: PciBus,
        *,
        rules: Rules,
        now: Callable[[], Moment],
        boot: str | None,
        machine: str | None,
    ) -> None:
        """`sources` are tried in their order; `boot` and `machine` as in `NodeInventory`."""
        self._sources = sources
        self._bus = bus
        self._rules = rules
        self._now = now
        self._boot = boot
        self._machine = machine
        self._memory = Memory(rule=rules.hold_down)
        self._first_index: dict[DeviceId, int] = {}
        self._source = Source.SYSFS
        self._lock = threading.Lock()  # guards the next two
        self._reported: list[tuple[DeviceId | None, str]] = []
        self._recalled: NodeInventory | None = None

    def read(self) -> NodeInventory:
        """The machine as it is now; raises `InventoryError` if nothing was ever seen of it."""
        survey, trouble = self._survey()
        why = str(trouble or "")
        now = self._now()
        self._catch_up(now)
        if survey is None:
            gpus = self._memory.silence(_cut(why), now=now)
            if trouble is not None and not gpus:
                raise trouble
            survey = Survey(source=self._source)
        else:
            gpus = self._memory.update(_bounded(survey), why=_cut(why), now=now)
        self._source = survey.source
        return self._inventory(survey, gpus, why)

    def report(self, event: XidEvent) -> None:
        """Count an Xid against its GPU from the next `read` on, if such Xids count."""
        if not self._rules.health.heeds(event.xid):
            return
        with self._lock:
            self._reported.append((event.uuid, xid_reason(event.xid)))

    def recall(self, published: NodeInventory) -> None:
        """Take what was published since the machine booted into account from the next `read` on."""
        if self._boot is not None and published.boot == self._boot:
            with self._lock:
                self._recalled = published

    def _survey(self) -> tuple[Survey | None, InventoryError | None]:
        """What the best source tells that answers, and what is wrong with the best of all."""
        trouble = None
        for source in self._sources:
            try:
                return source.survey(), trouble
            except InventoryError as error:
                trouble = trouble or error
            except OSError as error:
                # A driver that is just being replaced takes files away under the reader.
                trouble = trouble or InventoryError(
                    f"a file cannot be read ({error.strerror}): {error.filename}",
                    advice="it is tried again in a moment",
                )
        return None, trouble

    def _catch_up(self, now: Moment) -> None:
        with self._lock:
            reported, self._reported = self._reported, []
            recalled, self._recalled = self._recalled, None
        if recalled is not None:
            self._first_index.update({gpu.uuid: gpu.index for gpu in recalled.gpus})
            self._first_index.update(
                {w.uuid: w.index for w in recalled.withheld if w.uuid and w.index is not None}
            )
            self._memory.recall(recalled, now=now)
        for uuid, reason in reported:
            self._memory.strike(uuid, reason, now=now)

    def _inventory(self, survey: Survey, gpus: Sequence[Gpu], why: str) -> NodeInventory:
        on_bus = self._bus.gpus()
        given, withheld = [], []
        for gpu in gpus:
            first_index = self._first_index.setdefault(gpu.uuid, gpu.index)
            refusal = self._rules.choice.refusal(gpu, first_index=first_index)
            if refusal is None:
                given.append(gpu)
            else:
                withheld.append(_refused(gpu, refusal, first_index))
        known = {gpu.bdf for gpu in gpus}
        withheld += [each for each in survey.withheld if each.bdf is None or each.bdf not in known]
        known |= {each.bdf for each in withheld}
        withheld += [gpu.withheld() for bdf, gpu in on_bus.items() if bdf not in known]
        return NodeInventory(
            source=survey.source,
            driver=survey.driver,
            cuda=survey.cuda,
            gpus=tuple(_completed(gpu, given, on_bus) for gpu in given),
            withheld=tuple(replace(each, reason=_cut(each.reason)) for each in withheld),
            trouble=_cut(why),
            boot=self._boot,
            machine=self._machine,
        )


def node_keeper(
    driver_root: Path,
    nvml: NvmlSource,
    *,
    rules: Rules,
    now: Callable[[], Moment],
    boot: str | None,
) -> InventoryKeeper:
    """The keeper of the machine below a driver root, with all its sources."""
    bus = PciBus(driver_root)
    smi = SmiSource(driver_root, policy=rules.health)
    return InventoryKeeper(
        (nvml, smi, ProcSource(driver_root), bus),
        bus,
        rules=rules,
        now=now,
        boot=boot,
        machine=kernel.machine_model(driver_root),
    )


def _refused(gpu: Gpu, reason: str, first_index: int) -> Withheld:
    return Withheld(
        reason=reason, index=first_index, bdf=gpu.bdf, uuid=gpu.uuid, product=gpu.product
    )


def _completed(gpu: Gpu, given: Sequence[Gpu], on_bus: dict[str, PciGpu]) -> Gpu:
    """The GPU with its PCI class, linked only to GPUs that are given out too."""
    found = on_bus.get(gpu.bdf or "")
    peers = {other.uuid for other in given}
    return replace(
        gpu,
        pci_class=found.pci_class if found is not None else gpu.pci_class,
        links=tuple(link for link in gpu.links if link.peer in peers),
    )


def _bounded(survey: Survey) -> Survey:
    """The survey with reasons that fit into an annotation."""
    return replace(
        survey,
        sightings=tuple(
            replace(each, gpu=replace(each.gpu, health_reason=_cut(each.gpu.health_reason)))
            for each in survey.sightings
        ),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"

"""The agent's loop: observe, decide, act, publish; every few seconds and whenever woken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from gpus.annotations import INVENTORY, PATH_CONDITION, AnnotationError, decode_inventory
from gpus.model import NodeInventory
from kube.errors import KubeError
from kube.events import EventRecorder
from kube.watch import Event, EventKind
from nodeagent.deviceplugin.allocation import DeviceList, Handover
from nodeagent.deviceplugin.devices import device_of, withheld
from nodeagent.deviceplugin.plugins import PluginSet
from nodeagent.deviceplugin.preparation import Preparation, Ways
from nodeagent.metrics import Metrics, Shown
from nodeagent.node import OwnNode, condition_of, gpu_capacity, reference
from nodeagent.observer import Observed, Observer
from nodeagent.path import Cause, Decision, decide, with_handover
from nodeagent.publisher import Publisher
from nodeagent.reader import InventoryReader
from nodeagent.report import Message, health_events, path_event, wanted
from service.logs import ERROR, REASON

#: Seconds that kubelet is given to take our plugin before the Node says that it has not yet.
_REGISTRATION_GRACE = 4.0
#: Seconds between looks whether everything was read once.
_STARTING = 0.25
#: Seconds from one round to the next, at least. A round asks kubelet twice, which answers ten
#: questions at once and a hundred a second, whoever asks: monitors of GPUs by pod do so too
#: (pkg/kubelet/apis/podresources/constants.go).
_APART = 0.1

log = structlog.get_logger()


class NodeView:
    """The own Node as last seen; `on_event` is called by a reflector."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        #: None until it was seen, and after it was deleted.
        self.node: OwnNode | None = None

    def on_event(self, event: Event[OwnNode]) -> None:
        """Take one change in, and tell of those that matter: kubelet's heartbeats do not."""
        before = self.node
        self.node = None if event.kind is EventKind.DELETED else event.object
        if _essence(before) != _essence(self.node):
            self._on_change()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop works with."""

    view: NodeView
    reader: InventoryReader
    observer: Observer
    plugins: PluginSet
    preparation: Preparation
    publisher: Publisher
    events: EventRecorder
    metrics: Metrics
    #: Tells whether GPUs, pods and Node have been read once, before which nothing is decided.
    known: Callable[[], bool]
    #: Tells from the Node which ways lead into its containers.
    ways: Callable[[OwnNode], Ways]


class HandoverCell:
    """How devices are handed over now: written by the loop, read by the plugin's threads."""

    def __init__(self) -> None:
        self._value = Handover(device_list=DeviceList.ENV)

    def __call__(self) -> Handover:
        """Return the present value."""
        return self._value

    def set(self, value: Handover) -> None:
        """Replace it."""
        self._value = value


class Agent:
    """Brings kubelet and the Node in line with what the node has."""

    def __init__(
        self,
        parts: Parts,
        *,
        handover: HandoverCell,
        wake: threading.Event,
        interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._handover = handover
        self._wake = wake
        self._interval = interval
        self._clock = clock
        self._registering_since: float | None = None
        self._told: NodeInventory | None = None
        self._recalled = False
        self._decision: Decision | None = None
        self._cause: Cause | None = None
        #: `time.monotonic()` of the last round that ended well.
        self.finished_at: float | None = None

    def run(self, stop: threading.Event) -> None:
        """Go round until `stop` is set."""
        while not stop.is_set():
            self._wake.clear()
            began, pause = self._clock(), self._interval
            try:
                if self.round():
                    self.finished_at = self._clock()
                    self._parts.metrics.rounds.observe(self.finished_at - began)
                else:
                    pause = _STARTING
            except KubeError as error:
                self._parts.metrics.failures.inc()
                log.warning("node not updated", **{ERROR: str(error)})
            self._wake.wait(pause)
            stop.wait(max(0.0, began + _APART - self._clock()))

    def round(self) -> bool:
        """Do one round; returns False while too little is known to decide anything."""
        parts, node = self._parts, self._parts.view.node
        if node is None or not self._recall(node) or not parts.known():
            return False
        reading = parts.reader.latest()
        observed = parts.observer.observe(node, reading, parts.plugins.status)
        decision = self._act(decide(observed.observation), observed, reading.inventory, node)
        if observed.trouble:
            decision = replace(decision, reason=f"{decision.reason}; {observed.trouble}")
        self._note(decision)
        if decision.remove_stale:
            parts.publisher.remove_stale(node, sorted(gpu_capacity(node)))
        if not self._wait_for_kubelet(decision):
            self._publish(node, decision, reading.inventory, observed)
        return True

    def _recall(self, node: OwnNode) -> bool:
        """Tell the reader once what an agent before this one published; returns whether it knew."""
        if self._recalled:
            return True
        self._recalled = True
        published = _published_inventory(node)
        if published is not None:
            self._parts.reader.recall(published)
        return published is None

    def _act(
        self,
        decision: Decision,
        observed: Observed,
        inventory: NodeInventory | None,
        node: OwnNode,
    ) -> Decision:
        """Serve kubelet, or not; returns the decision with what hinders it."""
        plugins = self._parts.plugins
        if inventory is not None and (decision.register or observed.observation.holders):
            # The runtime must know a device before kubelet can give it out, and as long as a pod
            # may hold it: kubelet names it again whenever it starts the container again.
            handover = self._parts.preparation.prepare(inventory, self._parts.ways(node))
            self._handover.set(handover)
            decision = with_handover(decision, trouble=handover.trouble, broken=handover.broken)
        if decision.register and inventory is not None:
            broken, offers = self._handover().broken, observed.offers
            plugins.serve(withheld(offers) if broken else offers)
            return decision
        if observed.observation.foreign:
            plugins.stand_aside()
        else:
            plugins.withdraw()
        return decision

    def _wait_for_kubelet(self, decision: Decision) -> bool:
        """Tell whether to leave the Node as it is: registration usually takes under a second.

        Otherwise a restart of kubelet, or a takeover, would show as two changes of path.
        """
        if decision.cause is not Cause.REGISTERING:
            self._registering_since = None
            return False
        if self._registering_since is None:
            self._registering_since = self._clock()
        return self._clock() - self._registering_since < _REGISTRATION_GRACE

    def _publish(
        self,
        node: OwnNode,
        decision: Decision,
        inventory: NodeInventory | None,
        observed: Observed,
    ) -> None:
        parts = self._parts
        before = parts.publisher.writes
        said = wanted(
            decision,
            inventory,
            in_use=observed.in_use,
            held=observed.held,
            plugin=observed.plugin,
        )
        parts.publisher.publish(node, said)
        parts.metrics.writes.inc(parts.publisher.writes - before)
        held = {device_of(device) for device in observed.held}
        parts.metrics.show(
            Shown(
                inventory=inventory,
                path=decision.path,
                cause=str(decision.cause),
                served=said.condition.status if said.condition is not None else None,
                held=len(held),
                given=observed.given,
            )
        )
        if self._told is None:
            self._told = _published_inventory(node)
        messages = list(health_events(self._told, inventory))
        self._told = inventory or self._told
        if parts.publisher.writes != before:
            shown = condition_of(node, PATH_CONDITION)
            # What we wrote a moment ago may not be seen yet, and is not told twice.
            last = self._cause or (shown.reason if shown else None)
            if event := path_event(decision, before=last):
                messages.insert(0, event)
        self._cause = decision.cause
        for message in messages:
            self._tell(node, message)

    def _tell(self, node: OwnNode, message: Message) -> None:
        self._parts.events.event(
            reference(node), type=message.type, reason=message.reason, message=message.message
        )

    def _note(self, decision: Decision) -> None:
        if decision != self._decision:
            log.info("path decided", path=str(decision.path), **{REASON: decision.reason})
        self._decision = decision


def _published_inventory(node: OwnNode) -> NodeInventory | None:
    try:
        return decode_inventory((node.metadata.annotations or {}).get(INVENTORY, ""))
    except AnnotationError:
        return None


def _essence(node: OwnNode | None) -> object:
    if node is None:
        return None
    return (
        node.metadata.uid,
        node.metadata.labels,
        node.metadata.annotations,
        gpu_capacity(node),
        condition_of(node, PATH_CONDITION),
    )

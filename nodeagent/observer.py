"""Gathers everything that the path depends on: kubelet's sockets and files, the Node, its pods.

What follows from it is decided in `nodeagent.path`; nothing is changed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path as FilePath

import structlog

from gpus.model import DeviceId, Path, PodUid, ResourceName
from nodeagent.deviceplugin.devices import NothingToOffer, Offer, Offering, device_of, offers
from nodeagent.deviceplugin.foreign import ForeignPlugin, find_sockets
from nodeagent.deviceplugin.plugins import Status
from nodeagent.deviceplugin.registration import KUBELET_SOCKET, Stamp, stamp
from nodeagent.holders import HolderMemory
from nodeagent.node import (
    OwnNode,
    allocatable,
    asks_for_annotation_path,
    gpu_capacity,
    is_served_resource,
    published_path,
)
from nodeagent.path import Observation
from nodeagent.podresources.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from nodeagent.podresources.client import Holder, PodResources, PodResourcesError, Resources
from nodeagent.pods import NodePods
from nodeagent.reader import Reading
from nodeagent.report import OwnOffer
from service.logs import ERROR

#: Seconds for which kubelet's device manager remembers a plugin that stopped
#: (devicemanager/types.go endpointStopGracePeriod), and some for its next status update.
REMEMBERED = 330.0
#: Seconds for which kubelet may answer nothing, as while it restarts, before the Node tells it.
PATIENCE = 10.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The input of the decision, and who holds which device."""

    observation: Observation
    in_use: Mapping[DeviceId, PodUid]
    #: Devices that pods of either path hold; of shared ones, the replicas too.
    held: frozenset[DeviceId]
    #: Those devices with the containers that hold them, as far as they are known by name.
    given: frozenset[tuple[DeviceId, Holder]]
    #: What our plugin has to offer.
    offers: Mapping[ResourceName, Offer]
    plugin: OwnOffer
    #: What kubelet answers or writes that cannot be understood; empty where all is well.
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The admin's choices; `patience` in seconds, for a kubelet that is away."""

    plugin_allowed: bool = True
    patience: float = 60.0
    offering: Offering = field(default_factory=Offering)


class Observer:
    """Observes one node again and again; one thread uses it."""

    def __init__(
        self,
        plugin_folder: FilePath,
        pod_resources: PodResources,
        pods: NodePods,
        *,
        choices: Choices,
        dra: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = plugin_folder
        self._pod_resources = pod_resources
        self._pods = pods
        self._choices = choices
        self._dra = dra
        self._clock = clock
        self._foreign = ForeignPlugin()
        self._history = _History()
        self._kubelet_seen = clock()
        self._kubelet: tuple[Stamp | None, ...] = ()
        self._memory = HolderMemory(pods.uid_of)
        self._active_at = clock()
        self._faults: dict[str, _Fault] = {}

    def observe(self, node: OwnNode, reading: Reading, plugin: Callable[[], Status]) -> Observed:
        """Return how things stand; `plugin` tells how far our own has come with kubelet."""
        now = self._clock()
        before = plugin()
        sockets = find_sockets(self._folder)
        resources = self._resources()
        # Kubelet may have begun to listen to us, or ceased, while it was asked.
        own = plugin()
        checkpoint, readable = self._checkpoint()
        kubelet = self._kubelet_present(now)
        holders = self._memory.holders(resources, checkpoint, now=now)
        self._complain("kubelet names devices that no GPU can be", ", ".join(holders.strange))
        found, missing = self._offers(reading)
        capacity = gpu_capacity(node)
        heard = before.heard or own.heard
        foreign = self._foreign.serves(
            sockets,
            given_by_kubelet=_gives_out(resources, node),
            own_heard=heard,
            chosen_ns=max(before.chosen_ns, own.chosen_ns),
            now=now,
        )
        if heard or any(capacity.values()):
            self._active_at = now
        published = published_path(node)
        self._history.note(published, now=now)
        pods = self._pods.counts()
        observation = Observation(
            devices=sum(len(offer.devices) for offer in found.values()),
            devices_missing=missing,
            kubelet=kubelet,
            plugin_allowed=self._choices.plugin_allowed,
            annotation_asked=asks_for_annotation_path(node),
            foreign=foreign,
            dra=self._dra(),
            own=own.own,
            own_error=own.error,
            annotation_pods=pods.annotation,
            plugin_pods=pods.plugin,
            holders=holders.count(),
            capacity=max(capacity.values(), default=None),
            remembered=self._remembered(checkpoint, readable=readable, now=now),
            published=published,
            since_annotation=self._history.since(Path.ANNOTATION, now=now),
            since_plugin=self._history.since(Path.PLUGIN, now=now),
        )
        return Observed(
            observation=observation,
            in_use=holders.uids,
            held=frozenset(
                {*self._pods.assigned(), *holders.held, *map(device_of, holders.held)}
                | holders.uids.keys()
            ),
            given=holders.given | self._pods.given(),
            offers=found,
            plugin=OwnOffer(
                offering=self._choices.offering,
                devices=[device for offer in found.values() for device in offer.devices],
            ),
            trouble="; ".join(
                f"{what}: {fault.error}"
                for what, fault in self._faults.items()
                if now - fault.since >= PATIENCE
            ),
        )

    def _offers(self, reading: Reading) -> tuple[Mapping[ResourceName, Offer], str]:
        """Return what can be offered, and why there is nothing."""
        if reading.inventory is None:
            return {}, reading.error
        try:
            return offers(reading.inventory, self._choices.offering), reading.error
        except NothingToOffer as error:
            return {}, str(error)

    def _kubelet_present(self, now: float) -> bool:
        """Tell whether kubelet offers registration, or did a moment ago: it may be restarting."""
        sockets = (stamp(self._folder / KUBELET_SOCKET), stamp(self._pod_resources.socket))
        if self._kubelet not in ((), sockets):
            self._memory.kubelet_started(now=now)
        self._kubelet = sockets
        if sockets[0] is not None:
            self._kubelet_seen = now
            return True
        return self._folder.is_dir() and now - self._kubelet_seen < self._choices.patience

    def _resources(self) -> Resources | None:
        if not self._pod_resources.socket.exists():
            return None
        try:
            resources = self._pod_resources.read()
        except PodResourcesError as error:
            self._complain("kubelet does not say who holds devices", str(error))
            return None
        self._complain("kubelet does not say who holds devices", "")
        return resources

    def _checkpoint(self) -> tuple[Checkpoint | None, bool]:
        try:
            checkpoint = read_checkpoint(self._folder)
        except CheckpointError as error:
            self._complain("kubelet's checkpoint cannot be read", str(error))
            return None, False
        self._complain("kubelet's checkpoint cannot be read", "")
        return checkpoint, True

    def _remembered(self, checkpoint: Checkpoint | None, *, readable: bool, now: float) -> bool:
        if not readable:
            return now - self._active_at < REMEMBERED
        return checkpoint is not None and any(map(is_served_resource, checkpoint.registered))

    def _complain(self, message: str, error: str) -> None:
        before = self._faults.get(message)
        if not error:
            self._faults.pop(message, None)
            return
        if before is None or before.error != error:
            log.warning(message, **{ERROR: error})
        since = self._clock() if before is None else before.since
        self._faults[message] = _Fault(error, since)


@dataclass(frozen=True, slots=True)
class _Fault:
    """What kubelet does wrong, and since when without a break (monotonic seconds)."""

    error: str
    since: float


@dataclass(slots=True)
class _History:
    """Since when the Node has not shown a path.

    What it showed before this process is not known. Between two paths it may have been any a
    moment ago; a path in force has been so for long enough.
    """

    last: dict[Path, float] = field(default_factory=dict)
    begun: bool = False

    def note(self, published: Path | None, *, now: float) -> None:
        if published is not None:
            if not self.begun and published in (Path.SETTLING, Path.DRAINING):
                self.last = dict.fromkeys(Path, now)
            self.last[published] = now
        self.begun = True

    def since(self, path: Path, *, now: float) -> float:
        return now - self.last[path] if path in self.last else inf


def _gives_out(resources: Resources | None, node: OwnNode) -> bool:
    """Tell whether kubelet has healthy GPUs; node status says so too, up to 10 s later."""
    if resources is None:
        return allocatable(node) > 0
    return any(is_served_resource(name) and ids for name, ids in resources.healthy.items())

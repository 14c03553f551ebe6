"""Tells owners of pods of which nobody can say what GPUs they hold; their node gives out none."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from extender.cluster import Cluster
from extender.placement.facts import PodFacts
from gpus.model import PodUid
from kube.events import EventRecorder
from kube.objects import ObjectReference
from service.logs import NODE, POD, REASON

#: The `reason` of the Event.
EVENT = "GPUsUnknown"
#: Seconds between looks.
_EVERY = 5.0

log = structlog.get_logger()


class UnclearHolders:
    """Writes one Warning for each such pod and leadership; `leading` tells whether it is ours."""

    def __init__(
        self, cluster: Cluster, events: EventRecorder, *, leading: Callable[[], bool]
    ) -> None:
        self._cluster = cluster
        self._events = events
        self._leading = leading
        self._told: set[PodUid] = set()

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set."""
        while not stop.wait(_EVERY):
            self.look()

    def look(self) -> None:
        """Tell of every pod that was not told of before."""
        if not self._leading():
            self._told = set()
            return
        states = self._cluster.snapshot().nodes.flat().values()
        unclear = {pod.uid: pod for state in states for pod in state.unclear()}
        for uid in unclear.keys() - self._told:
            self._tell(unclear[uid])
        self._told = set(unclear)

    def _tell(self, pod: PodFacts) -> None:
        namespace, _, name = pod.key.partition("/")
        message = (
            f"It cannot be said which GPUs of node {pod.node} this pod holds: {pod.unclear}. Until "
            "it has ended, the node gets no other GPU pods; delete it and create it again"
        )
        self._events.event(
            ObjectReference(
                api_version="v1", kind="Pod", namespace=namespace, name=name, uid=pod.uid
            ),
            type="Warning",
            reason=EVENT,
            message=message,
        )
        log.warning("holder unknown", **{POD: pod.key, NODE: pod.node, REASON: pod.unclear})

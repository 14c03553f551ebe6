"""Tells owners of pods which GPUs they got, by an Event on the pod."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from extender.cluster import Cluster
from extender.protocol import ExtenderBindingArgs
from gpus.model import Assignment, DeviceId, NodeName
from kube.events import EventRecorder, TokenBucket
from kube.objects import ObjectReference

#: The `reason` of the Event.
EVENT = "GPUsAssigned"
_GIB = 1 << 30
#: Pods told of at once, and a second in the long run; less than a recorder writes, so none waits.
_BURST = 20
_RATE = 1.0


class Announcer:
    """Writes one Event a bind; in a storm of binds some, so that they cost next to nothing.

    What a pod got is in its annotation in any case. `events` is a recorder of its own: a storm of
    binds must not push warnings out. `clock` gives monotonic seconds.
    """

    def __init__(
        self, events: EventRecorder, cluster: Cluster, *, clock: Callable[[], float]
    ) -> None:
        self._events = events
        self._cluster = cluster
        self._clock = clock
        self._lock = threading.Lock()  # guards the next one
        self._bucket = TokenBucket(rate=_RATE, burst=_BURST)

    def bound(self, args: ExtenderBindingArgs, assignment: Assignment) -> None:
        """Tell of a pod that was bound, if it is its turn; never waits."""
        with self._lock:
            if not self._bucket.take(now=self._clock()):
                return
        state = self._cluster.snapshot().nodes.get(NodeName(args.node))
        path = str(state.path) if state is not None and state.path is not None else "unknown"
        self._events.event(
            ObjectReference(
                api_version="v1",
                kind="Pod",
                namespace=args.pod_namespace,
                name=args.pod_name,
                uid=args.pod_uid,
            ),
            type="Normal",
            reason=EVENT,
            message=text(assignment, node=args.node, path=path),
        )


def text(assignment: Assignment, *, node: str, path: str) -> str:
    """Say what the containers of a pod got: by name, or that kubelet chooses."""
    given = {name: ids for name, ids in assignment.containers.items() if ids}
    if not given:
        return f"Kubelet of node {node} chooses the GPUs (path {path})"
    share = f"{assignment.share_bytes / _GIB:.3g} GiB of " if assignment.share_bytes else ""
    if len(set(given.values())) == 1:
        (devices,) = set(given.values())
        return f"Got {share}{_listed(devices)} of node {node} (path {path})"
    each = "; ".join(f"{name}: {_listed(ids)}" for name, ids in sorted(given.items()))
    return f"Got of node {node} (path {path}): {each}"


def _listed(devices: Sequence[DeviceId]) -> str:
    return ", ".join(devices)

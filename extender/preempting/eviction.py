"""Evicts pods of low priority from GPUs that a pod of higher priority waits for. Off by default.

By the Eviction API alone, so that PodDisruptionBudgets hold, and only where the pod then fits: each
eviction is tried as a dry run first, and none is made unless all that are needed would be taken.
What comes free is kept for the pod that it was freed for.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum, auto
from typing import Any

import structlog

from extender.cluster import Cluster
from extender.metrics import Metrics, Preempted
from extender.placement.facts import PodFacts
from extender.placement.state import NodeState
from extender.placement.victims import Room, make_room
from extender.preempting.disruption import Budget, beyond
from extender.preempting.preemption import Need, Preemption
from gpus.annotations import ASSIGNED, GPU_LABEL, GPU_LABEL_VALUE, encode_assigned
from gpus.model import Assignment, NodeName, PodUid
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.events import EventRecorder
from kube.objects import Object, ObjectMeta, ObjectReference, Struct
from service.logs import ERROR, NODE, POD, REASON

#: Seconds between looks at what is kept for whom.
_EVERY = 1.0
#: How often other victims are looked for when some may not be evicted.
_ATTEMPTS = 16

log = structlog.get_logger()


class Answer(StrEnum):
    """How the API server took an eviction."""

    TAKEN = auto()
    #: The pod is gone already.
    GONE = auto()
    #: A PodDisruptionBudget forbids it now, or we have no right, or nobody knows.
    REFUSED = auto()


class _PreemptorSpec(Struct, frozen=True):
    node_name: str = ""
    affinity: dict[str, Any] | None = None


class Preemptor(Struct, frozen=True):
    """What of a waiting pod is read anew before others are evicted for it."""

    metadata: ObjectMeta = ObjectMeta()
    spec: _PreemptorSpec = _PreemptorSpec()


class Evictor:
    """Works needs off, one after the other; `epoch` tells in which epoch we lead, or None."""

    def __init__(
        self,
        client: Client,
        cluster: Cluster,
        preemption: Preemption,
        *,
        epoch: Callable[[], int | None],
        events: EventRecorder,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._preemption = preemption
        self._epoch = epoch
        self._events = events
        self._metrics = metrics

    def run(self, stop: threading.Event) -> None:
        """Make room for pods until `stop` is set; looks at it once a second."""
        while not stop.is_set():
            need = self._preemption.next_need(seconds=_EVERY)
            if need is not None:
                self.work(need)
            self._preemption.renew()

    def work(self, need: Need) -> Preempted:
        """Evict who must go for one pod, all or none of them; return what came of it."""
        try:
            outcome = self._work(need)
        except KubeError as error:
            log.warning("no room made for a pod", **{POD: need.pod.key, ERROR: str(error)})
            outcome = Preempted.FAILED
        if outcome not in (Preempted.EVICTED, Preempted.WAITING):
            self._preemption.give_up(need)
        self._metrics.preempted[outcome].inc()
        return outcome

    def _work(self, need: Need) -> Preempted:
        epoch = self._epoch()
        if epoch is None or not self._waits(need):
            return Preempted.SKIPPED
        spared: set[PodUid] = set()
        for _ in range(_ATTEMPTS):
            room = self._room(need, spared)
            if room is None:
                break
            refused = self._refused(room.victims, epoch)
            if not refused:
                return self._make(need, room, epoch)
            spared |= refused
        if not spared:
            return Preempted.NOBODY
        self._tell(need.pod, "PreemptionRefused", _REFUSED)
        log.info("evictions refused", **{POD: need.pod.key}, pods=len(spared))
        return Preempted.REFUSED

    def _room(self, need: Need, spared: set[PodUid]) -> Room | None:
        lesser = self._preemption.lesser(need.pod.priority)
        nodes = self._cluster.snapshot().seen_by(need.pod.uid)
        return make_room(
            need.ask,
            priority=need.pod.priority,
            names=need.names,
            # Else somebody would be evicted for what only a less important pod waits for.
            nodes={**nodes, **_without_holds(nodes, lesser)} if lesser else nodes,
            spared=spared,
        )

    def _waits(self, need: Need) -> bool:
        """Tell whether the pod still waits, and would be sure to fit when others have gone."""
        try:
            pod = self._client.get(_path(need.pod), type=Preemptor)
        except NotFound:
            return False
        meta, spec = pod.metadata, pod.spec
        if meta.uid != need.pod.uid or meta.deletion_timestamp is not None or spec.node_name:
            return False
        # It may have to be beside one of those who would be evicted.
        wanted = (spec.affinity or {}).get("podAffinity") or {}
        return not wanted.get("requiredDuringSchedulingIgnoredDuringExecution")

    def _refused(self, victims: Sequence[PodFacts], epoch: int) -> set[PodUid]:
        """Return those of the victims who may not be evicted now, alone or together."""
        refused = {
            pod.uid
            for pod in victims
            if self._evict(pod, epoch=epoch, dry_run=True) is Answer.REFUSED
        }
        if refused:
            return refused
        by_namespace: defaultdict[str, list[PodFacts]] = defaultdict(list)
        for pod in victims:
            by_namespace[pod.key.partition("/")[0]].append(pod)
        for namespace, pods in by_namespace.items():
            if len(pods) > 1:
                refused |= self._beyond_budget(namespace, pods)
        return refused

    def _beyond_budget(self, namespace: str, pods: Sequence[PodFacts]) -> set[PodUid]:
        path = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
        budgets = self._client.list_all(path, type=Budget).items
        if not budgets:
            return set()
        found = []
        for pod in pods:
            try:
                found.append(self._client.get(_path(pod), type=Object).metadata)
            except NotFound:
                continue
        return {PodUid(meta.uid) for meta in beyond(found, budgets)}

    def _make(self, need: Need, room: Room, epoch: int) -> Preempted:
        leaving = self._leaving(room.node)
        uids = leaving.union(pod.uid for pod in room.victims)
        if not self._preemption.begin(need, room.node, uids) or not room.victims:
            return Preempted.WAITING
        gone: set[PodUid] = set()
        for pod in room.victims:
            answer = self._evict(pod, epoch=epoch, dry_run=False)
            if answer is Answer.REFUSED:
                break
            gone.add(pod.uid)
            if answer is Answer.TAKEN:
                self._evicted(pod, need, room)
        if not gone:
            return Preempted.REFUSED
        # Whoever is left is asked again when the scheduler has asked again.
        self._preemption.limit(need, room.node, leaving | gone)
        message = f"Evicting {len(gone)} pod(s) of lower priority from GPUs of node {room.node}"
        self._tell(need.pod, "Preempting", message)
        return Preempted.EVICTED

    def _evicted(self, pod: PodFacts, need: Need, room: Room) -> None:
        self._metrics.evictions.inc()
        log.info("evicted", **{POD: pod.key, NODE: room.node}, preemptor=need.pod.key)
        # By UID: who may see the one pod may not be allowed to know the other.
        message = f"Preempted by pod {need.pod.uid} on node {room.node}, which needs its GPUs"
        self._tell(pod, "Preempted", message)

    def _leaving(self, node: NodeName) -> frozenset[PodUid]:
        state = self._cluster.snapshot().nodes.get(node, NodeState())
        return frozenset(pod.uid for pod in state.pods.values() if pod.leaving)

    def _evict(self, pod: PodFacts, *, epoch: int, dry_run: bool) -> Answer:
        """Ask for one eviction; a budget's no is REFUSED, as is everything that is not a yes.

        Label and epoch let the fencing policy refuse a leader of the past.
        """
        namespace, _, name = pod.key.partition("/")
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {GPU_LABEL: GPU_LABEL_VALUE},
                "annotations": {ASSIGNED: encode_assigned(Assignment(epoch=epoch))},
            },
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        params = {"dryRun": "All"} if dry_run else None
        try:
            answer = self._client.create(f"{_path(pod)}/eviction", body, params=params)
        except NotFound:
            return Answer.GONE
        except KubeError as error:
            log.info("eviction refused", **{POD: pod.key, REASON: str(error)}, dry_run=dry_run)
            return Answer.REFUSED
        # More than one budget for a pod is a failure inside of an answer that looks like success.
        if isinstance(answer, dict) and answer.get("status") == "Failure":
            log.info("eviction refused", **{POD: pod.key, REASON: answer.get("message")})
            return Answer.REFUSED
        return Answer.TAKEN

    def _tell(self, pod: PodFacts, reason: str, message: str) -> None:
        namespace, _, name = pod.key.partition("/")
        regarding = ObjectReference(
            api_version="v1", kind="Pod", namespace=namespace, name=name, uid=pod.uid
        )
        self._events.event(regarding, type="Normal", reason=reason, message=message)


_REFUSED = (
    "Pods of lower priority have the GPUs, but may not be evicted now: see their "
    "PodDisruptionBudgets"
)


def _without_holds(
    nodes: Mapping[NodeName, NodeState], uids: frozenset[PodUid]
) -> dict[NodeName, NodeState]:
    return {
        name: state.having(holds={k: hold for k, hold in state.holds.items() if k not in uids})
        for name, state in nodes.items()
        if not uids.isdisjoint(state.holds)
    }


def _path(pod: PodFacts) -> str:
    namespace, _, name = pod.key.partition("/")
    return f"/api/v1/namespaces/{namespace}/pods/{name}"

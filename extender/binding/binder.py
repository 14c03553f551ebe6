"""Bind: reserve in the ledger, hand the devices over, post the one write that says it all.

Every call to the API server ends in one of three ways: it took effect, it did not, or nobody
knows. Only what certainly did not take effect is given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from extender.binding import handover
from extender.binding.device_lists import DeviceLists, DeviceListTaken
from extender.cluster import Bid, Cluster, Settled
from extender.metrics import Metrics, Refusal
from extender.placement.facts import PodFacts, PodKey, read_pod
from extender.placement.reasons import Rejection
from extender.placement.state import Reservation
from extender.protocol import ExtenderBindingArgs
from gpus.model import Assignment, NodeName
from kube.client import Client
from kube.errors import ApiError, Conflict, Forbidden, KubeError, NotFound
from kube.objects import Pod
from service.logs import EPOCH, GPUS, NODE, POD, REASON

OnBound = Callable[[ExtenderBindingArgs, Assignment], None]

log = structlog.get_logger()


class BindError(Exception):
    """The pod was not bound; the text goes to the scheduler and from there to an Event."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


class _Unanswered(Exception):
    """Whether the Binding took effect is not known, and may change by itself."""


class Binder:
    """Binds pods; works on when the scheduler has stopped waiting.

    At most one call at a time works on a pod. `epoch` tells in which epoch we lead, or None.
    """

    def __init__(
        self,
        client: Client,
        cluster: Cluster,
        *,
        epoch: Callable[[], int | None],
        metrics: Metrics,
        on_bound: OnBound | None = None,
        on_forbidden: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_bound` is told of every bind that took effect, on the thread of the call;
        `on_forbidden` when the API server forbade one.
        """
        self._client = client
        self._cluster = cluster
        self._device_lists = DeviceLists(client, cluster)
        self._epoch = epoch
        self._metrics = metrics
        self._on_bound = on_bound
        self._on_forbidden = on_forbidden
        self._lock = threading.Lock()  # guards the next one
        self._working: dict[str, threading.Event] = {}

    def bind(self, args: ExtenderBindingArgs) -> None:
        """Bind a pod to a node; returns also when it is bound there already.

        Raises `BindError`.
        """
        keys = {POD: f"{args.pod_namespace}/{args.pod_name}", NODE: args.node}
        try:
            with self._alone(args.pod_uid):
                assignment = self._bind(args)
        except BindError as error:
            self._metrics.refused[error.refusal].inc()
            log.info("bind refused", **keys, **{REASON: str(error)})
            if isinstance(error.__cause__, Forbidden):
                self._on_forbidden()
            raise
        self._metrics.binds.inc()
        if self._on_bound is not None:
            self._on_bound(args, assignment)
        devices = sorted(assignment.devices())
        log.info("bound", **keys, **{GPUS: devices, EPOCH: assignment.epoch})

    @contextmanager
    def _alone(self, uid: str) -> Iterator[None]:
        """Wait until no other call works on the pod: the scheduler may ask again too early."""
        done = threading.Event()
        while True:
            with self._lock:
                other = self._working.setdefault(uid, done)
            if other is done:
                break
            other.wait()
        try:
            yield
        finally:
            with self._lock:
                del self._working[uid]
            done.set()

    def _bind(self, args: ExtenderBindingArgs) -> Assignment:
        epoch = self._epoch()
        if epoch is None:
            raise BindError(Refusal.NOT_LEADING, "this replica of the extender does not lead")
        node = NodeName(args.node)
        pod = self._pod(args)
        if not pod.waits:
            return _settled(pod, node, otherwise=Assignment(epoch=epoch))
        if pod.fault:
            raise BindError(Refusal.DEMAND, pod.fault)
        if pod.demand is None:
            return self._without_devices(pod, node, Assignment(epoch=epoch))
        bid = Bid(pod=pod, demand=pod.demand, node=node, epoch=epoch)
        outcome = self._cluster.reserve(bid)
        if isinstance(outcome, Settled):
            return _settled(outcome.pod, node, otherwise=Assignment(epoch=epoch))
        if isinstance(outcome, Rejection):
            raise BindError(Refusal.FULL, f"node {node}: {outcome.main.text}")
        return self._with_devices(bid, outcome)

    def _pod(self, args: ExtenderBindingArgs) -> PodFacts:
        """Return what is known of the pod; read it only where the watch has not shown it yet."""
        key = PodKey(f"{args.pod_namespace}/{args.pod_name}")
        pod = self._cluster.snapshot().pods.get(key)
        if pod is None or pod.uid != args.pod_uid:
            try:
                pod = self._read(args.pod_namespace, args.pod_name)
            except KubeError as error:
                raise _refused(error) from error
        if pod.uid != args.pod_uid:
            raise BindError(Refusal.PLACED, "the pod was deleted and created again")
        return pod

    def _read(self, namespace: str, name: str) -> PodFacts:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        return read_pod(self._client.get(path, type=Pod))

    def _with_devices(self, bid: Bid, reservation: Reservation) -> Assignment:
        try:
            reservation = self._device_lists.hand_over(bid, reservation)
        except (KubeError, DeviceListTaken) as error:
            # A ConfigMap alone gives nothing to a pod that is not bound.
            self._cluster.release(reservation)
            raise _refused(error) from error
        try:
            assignment = self._post(bid.pod, bid.node, reservation.assignment)
        except _Unanswered as error:
            self._cluster.sent(reservation)
            raise _unanswered(error) from error
        except BindError:
            self._cluster.release(reservation)
            raise
        self._cluster.sent(reservation)
        return assignment

    def _without_devices(self, pod: PodFacts, node: NodeName, nothing: Assignment) -> Assignment:
        try:
            return self._post(pod, node, nothing)
        except _Unanswered as error:
            raise _unanswered(error) from error

    def _post(self, pod: PodFacts, node: NodeName, assignment: Assignment) -> Assignment:
        """Create the Binding. Raises `BindError` when it certainly did not take effect."""
        namespace, _, name = pod.key.partition("/")
        body = handover.binding(
            name, namespace=namespace, uid=pod.uid, node=node, assignment=assignment
        )
        try:
            self._client.create(handover.binding_path(namespace, name), body)
        except Conflict as error:
            # Bound already, by an earlier attempt perhaps, or being deleted.
            self._metrics.conflicts.inc()
            return self._look(pod, node, assignment, refused=error)
        except KubeError as error:
            if isinstance(error, ApiError) and error.status < 500:
                raise _refused(error) from error
            return self._look(pod, node, assignment, refused=None)
        return assignment

    def _look(
        self, pod: PodFacts, node: NodeName, assignment: Assignment, *, refused: ApiError | None
    ) -> Assignment:
        """Read the pod to learn what became of a Binding; `refused` when this one was."""
        namespace, _, name = pod.key.partition("/")
        try:
            now = self._read(namespace, name)
        except NotFound as error:
            raise _refused(error) from error
        except KubeError as error:
            raise _Unanswered(str(error)) from error
        if now.uid != pod.uid:
            raise BindError(Refusal.PLACED, "the pod was deleted and created again")
        if not now.waits:
            return _settled(now, node, otherwise=assignment)
        if refused is not None:
            raise _refused(refused)
        raise _Unanswered("the Binding got no answer")


def _settled(pod: PodFacts, node: NodeName, *, otherwise: Assignment) -> Assignment:
    """Return the assignment of a pod that is on that node already; else refuse."""
    if pod.ended:
        raise BindError(Refusal.PLACED, "the pod has ended")
    if pod.node != node:
        raise BindError(Refusal.PLACED, f"the pod is already bound to node {pod.node}")
    return pod.assignment or otherwise


def _refused(error: KubeError | DeviceListTaken) -> BindError:
    if isinstance(error, DeviceListTaken):
        return BindError(Refusal.DEVICE_LIST, str(error))
    if isinstance(error, NotFound):
        return BindError(Refusal.PLACED, f"the pod is gone: {error}")
    return BindError(Refusal.API, f"the API server did not take it: {error}")


def _unanswered(error: _Unanswered) -> BindError:
    return BindError(
        Refusal.UNANSWERED, f"whether the pod is bound is not known, it is looked into: {error}"
    )

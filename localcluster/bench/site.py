"""One system on one cluster of one size: what is there, and what batches of pods show.

Several sites live side by side, so that systems take turns and whatever else happens on the machine
hits all alike. A site that has no batch does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from gpus.annotations import ASSIGNED, decode_assigned
from localcluster.api import Object
from localcluster.bench import readings
from localcluster.bench.arrivals import Arrivals
from localcluster.bench.bulk import Call, send_all
from localcluster.bench.exposition import mean
from localcluster.bench.fleet import BATCH, FILL, GPUS, NODES, PODS, filling, node, node_names, pod
from localcluster.bench.outcome import Load, Outcome
from localcluster.bench.systems import Placement, System
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions

#: What the one loop of kube-scheduler spends on a pod: filters, scores, the extender's answer.
_LOOP_SECONDS = "scheduler_scheduling_algorithm_duration_seconds"
_AT_ONCE: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
OPTIONS = ControlPlaneOptions(
    node_lifecycle=False,
    apiserver_args=[
        # Else every new node needs a second write that takes its not-ready taint away.
        "--disable-admission-plugins=TaintNodesByCondition",
        # Thousands of pods are deleted at once.
        "--delete-collection-workers=8",
    ],
)

Tell = Callable[[str], None]


class WrongPlacement(Exception):
    """A GPU was given twice, or a node more pods than it has GPUs: figures mean nothing then."""


class Site:
    """A context manager: the cluster, its nodes, and everything but the scheduler."""

    def __init__(self, system: System, nodes: int, *, filled: bool, tell: Tell) -> None:
        self.system = system
        self.nodes = nodes
        self._filled = filled
        self._tell = tell
        self._batches = 0
        self._folder = TemporaryDirectory(prefix="bench-")
        self.cluster = LocalCluster(Path(self._folder.name) / "state", options=OPTIONS)

    def __enter__(self) -> Self:
        try:
            self.cluster.start(guarded=True)
            self._prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cluster.down()
        self._folder.cleanup()

    def _prepare(self) -> None:
        self.cluster.stop_scheduler()
        # It writes to every node whenever their number passes a bound (pkg/controller/ttl), and
        # nothing here needs it any more.
        self.cluster.processes.stop("kube-controller-manager")
        names, path = node_names(self.nodes), self.system.path
        self._create("nodes", NODES, (node(name, path=path) for name in names))
        # Before any policy is there: only the extender may say who holds a GPU.
        if self._filled:
            self._create("held GPUs", PODS, filling(names, path=path))
        self._tell("starting the rest")
        self.placement = Placement(self.system, self.cluster)
        self.placement.prepare()

    def clear(self) -> None:
        """Delete the pods that held GPUs from the start."""
        self._delete(FILL)

    def batch(
        self, load: Load, *, number: int, system: System | None = None, count_writes: bool = False
    ) -> Outcome:
        """Create pods while nobody schedules, start the scheduler, and watch until all are bound.

        `number` is that of the round. `system` is another one that runs on the same cluster. The
        pods are gone afterwards. Raises `Stalled` when pods stay behind, and `WrongPlacement`.
        """
        self._batches += 1
        name = f"batch-{self._batches}"
        stack = self.placement.stack
        first = readings.read(self.cluster, stack, settled=False)
        created = (pod(f"{name}-{index:05d}", batch=name) for index in range(load.pods))
        self._create("pods", PODS, created)
        before = readings.read(self.cluster, stack, settled=count_writes)
        with Arrivals(self.cluster.admin_kubeconfig, selector=f"{BATCH}={name}") as arrivals:
            self.placement.start_scheduler(system or self.system)
            arrivals.wait_for(load.pods, tell=self._tell)
            rate = arrivals.rate()
        after = readings.read(self.cluster, stack, settled=count_writes)
        said = readings.fetched(f"{self.cluster.scheduler.url}/metrics", self.cluster.ca_file)
        self.cluster.stop_scheduler()
        self._check(name)
        self._delete(name)
        return Outcome(
            system=system or self.system,
            load=load,
            round=number,
            pods_per_second=rate,
            loop=mean(said, _LOOP_SECONDS),
            latencies=readings.latencies(first, after),
            refused_share=readings.refused_share(before, after),
            writes_per_pod=readings.writes_per_pod(before, after, load.pods),
            memory={name: used.memory for name, used in after.usage.items()},
            cpu_per_pod=readings.cpu_per_pod(before, after, load.pods),
        )

    def _create(self, what: str, path: str, objects: Iterable[Object]) -> None:
        calls = (Call(f"POST {path}", each) for each in objects)
        self._send(calls, tell=lambda done: self._tell(f"{done} {what} created"))

    def _delete(self, batch: str) -> None:
        self._tell("deleting pods")
        selector = urlencode({"labelSelector": f"{BATCH}={batch}"})
        self._send([Call(f"DELETE {PODS}?{selector}", _AT_ONCE)])

    def _send(self, calls: Iterable[Call], *, tell: Callable[[int], None] | None = None) -> None:
        send_all(calls, kubeconfig=self.cluster.admin_kubeconfig, tell=tell)

    def _pods(self, batch: str) -> list[Object]:
        found: list[Object] = self.cluster.api.get(PODS, labelSelector=f"{BATCH}={batch}")["items"]
        return found

    def _check(self, batch: str) -> None:
        # The stub counts nothing and may well put two pods on one GPU.
        if self.system is System.STUB:
            return
        check(self._pods(batch), held=self._pods(FILL))


def check(bound: Iterable[Object], *, held: Iterable[Object]) -> None:
    """Raise `WrongPlacement` when pods have more GPUs than there are, or one has two holders."""
    on_node: Counter[str] = Counter()
    holders: Counter[str] = Counter()
    for one in [*bound, *held]:
        limits = one["spec"]["containers"][0]["resources"]["limits"]
        on_node[one["spec"].get("nodeName", "")] += int(limits["nvidia.com/gpu"])
        text = (one["metadata"].get("annotations") or {}).get(ASSIGNED)
        if text is not None:
            holders.update(decode_assigned(text).devices())
    if on_node.pop("", 0) or any(count > GPUS for count in on_node.values()):
        raise WrongPlacement("a node got more pods than it has GPUs, or a pod none")
    if any(count > 1 for count in holders.values()):
        raise WrongPlacement("a GPU was given to two pods")

"""What the tests of bind share: one process of the extender, as far as bind is concerned."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from extender.binding.binder import Binder, BindError
from extender.metrics import Metrics, Refusal
from extender.protocol import ExtenderBindingArgs
from gpus.model import GPU_RESOURCE, NodeName
from kube.reflector import EventKind
from tests.builders import NodeBuilder, PodBuilder
from tests.extender.ledgers import Told
from tests.fakes.binding_api import BindingApi


class Process:
    """An extender that leads in an epoch; a new one knows what a listing tells it."""

    def __init__(self, api: BindingApi, *nodes: NodeBuilder, epoch: int | None = 1) -> None:
        self.api = api
        self.epoch = epoch
        self.told = Told(*nodes)
        self.registry = CollectorRegistry()
        metrics = Metrics(
            self.registry, snapshot=self.told.cluster.snapshot, epoch=lambda: self.epoch
        )
        self.binder = Binder(
            api.client(), self.told.cluster, epoch=lambda: self.epoch, metrics=metrics
        )
        self.list_pods()

    def list_pods(self) -> None:
        """Hear of every pod that is stored."""
        for stored in self.api.pods.values():
            self.told.pod(PodBuilder(stored), EventKind.ADDED, listed=True)

    def bind(self, pod: PodBuilder, node: str) -> str:
        """Bind as the scheduler asks for it; return the error that it is told, or nothing."""
        meta = pod.raw()["metadata"]
        args = ExtenderBindingArgs(
            pod_name=pod.name, pod_namespace="default", pod_uid=meta["uid"], node=node
        )
        try:
            self.binder.bind(args)
        except BindError as error:
            return str(error)
        return ""

    def free(self, node: str) -> int:
        """Return how many whole GPUs a new pod could get there."""
        nodes = self.told.cluster.snapshot().nodes
        return nodes[NodeName(node)].free.get(GPU_RESOURCE, 0)

    def refusals(self, reason: Refusal) -> float:
        """Return how many binds were refused for a reason."""
        name = "gpudetour_extender_bind_refused_total"
        return self.registry.get_sample_value(name, {"reason": reason.value}) or 0.0

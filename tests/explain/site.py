"""What tests do to the cluster, and how they ask why a pod waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from explain.causes import Cause
from explain.findings import Explanation
from explain.gather import read_facts
from explain.judge import explain
from gpus.annotations import GPU_LABEL, GPU_LABEL_VALUE
from kube.client import Client
from kube.connection import connect
from kube.timestamps import micro_time
from localcluster.api import ApiError
from localcluster.simulated import NodeTemplate, bare_node
from localcluster.stack import NAMESPACE, Stack
from localcluster.waiting import WaitedTooLong, until
from tests.builders import NodeBuilder, node
from tests.cluster.pods import Object, bound, gpu_pod

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/default/pods"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
#: Seconds. Nothing here takes more than a few on a machine of its own.
TIMEOUT = 90.0


class Site:
    """The cluster as one situation has it; `clear` takes away all that was made through this."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.api = stack.cluster.api
        self.client = Client(connect(str(stack.cluster.admin_kubeconfig)))
        self._made: list[str] = []

    def create(self, collection: str, body: Object) -> Object:
        """Create an object that goes when the situation is over."""
        stored = self.api.create(collection, body)
        self._made.append(f"{collection}/{stored['metadata']['name']}")
        return stored

    def node(
        self,
        described: NodeBuilder,
        *,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Object] = (),
        lease: bool | None = None,
        with_gpus: bool = True,
    ) -> None:
        """Create a node as its agent describes it; `lease`: its agent speaks, or did once."""
        capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", **described.capacity}
        ours = {GPU_LABEL: GPU_LABEL_VALUE} if with_gpus else {}
        template = NodeTemplate(
            capacity=capacity, labels={**ours, **(labels or {})}, annotations=described.annotations
        )
        body = bare_node(described.name, template)
        body["status"]["allocatable"] = {**capacity, **described.allocatable}
        if taints:
            body["spec"] = {"taints": list(taints)}
        self.create(NODES, body)
        if lease is not None:
            self._heartbeat(
                described.name, datetime.now(UTC) if lease else datetime(2026, 1, 1, tzinfo=UTC)
            )

    def free_gpus(self) -> None:
        """Create a node with free GPUs: whoever waits then does not wait for those."""
        self.node(node("free").with_gpus(2).annotation_path())

    def _heartbeat(self, node: str, moment: datetime) -> None:
        spec = {
            "holderIdentity": node,
            # A machine that is slow must not make an agent silent that is meant to live.
            "leaseDurationSeconds": 3600,
            "renewTime": micro_time(moment),
        }
        self.create(LEASES, {"metadata": {"name": node}, "spec": spec})

    def pod(self, pod: Object) -> Object:
        """Create a pod in the namespace `default`."""
        return self.create(PODS, pod)

    def refusal(self) -> str:
        """What the API server says against a pod with a GPU; empty where it would be stored."""
        try:
            self.api.create(f"{PODS}?dryRun=All", gpu_pod("probe"))
        except ApiError as error:
            return str(error)
        return ""

    def holder(self, pod: Object) -> None:
        """Create a pod and wait until it has its node."""
        stored = self.pod(pod)
        path = f"{PODS}/{stored['metadata']['name']}"
        self.stack.cluster.wait_for(path, bound, timeout=TIMEOUT)

    def ask(self, name: str) -> Explanation:
        """Ask why the pod is as it is."""
        return explain(read_facts(self.client, "default", name))

    def first(self, name: str, cause: Cause, *, saw: str = "") -> Explanation:
        """Ask until the first cause is that one and says so; the cluster needs its time."""
        last: list[Explanation] = []

        def probe() -> Explanation | None:
            told = self.ask(name)
            last[:] = [told]
            found = told.findings
            return told if found and found[0].cause is cause and saw in found[0].saw else None

        try:
            return until(probe, timeout=TIMEOUT, what=f"first cause {cause.id}", interval=0.3)
        except WaitedTooLong as error:
            raise AssertionError(f"{error}; told last: {last}") from error

    def clear(self) -> None:
        """Take away what was made, pods first so that nodes are empty when they go."""
        for path in reversed(self._made):
            if not path.startswith(PODS):
                continue
            self._delete(path)
        for path in reversed(self._made):
            if not path.startswith(PODS):
                self._delete(path)
        until(self._is_empty, timeout=TIMEOUT, what="no pods")
        until(lambda: not self.api.get(NODES)["items"], timeout=TIMEOUT, what="no nodes")
        self.client.close()

    def _is_empty(self) -> bool:
        """Tell whether no pod is left; a Job may have made one until it was gone itself."""
        self.api.delete(PODS, grace_seconds=0)
        return not self.api.get(PODS)["items"]

    def _delete(self, path: str) -> None:
        # Jobs leave their pods behind where nobody says otherwise.
        query = "gracePeriodSeconds=0&propagationPolicy=Background"
        self.stack.cluster.kubectl("delete", "--raw", f"{path}?{query}", check=False)


def job(name: str, pod: Object) -> Any:
    """A Job of one such pod; what refuses the pod is told to its controller only."""
    spec = {**pod["spec"], "restartPolicy": "Never"}
    template = {"metadata": {k: v for k, v in pod["metadata"].items() if k != "name"}, "spec": spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template},
    }

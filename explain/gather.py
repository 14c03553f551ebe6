"""Facts about one pod from the API server. Reads only; what is refused is noted and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from doctor.shapes import mapping
from explain.causes import Cause
from explain.certificates import read_certificates
from explain.facts import Deployment, Event, Facts, Fence, Quota
from explain.parts import FENCE_POLICIES, scheduling_message
from explain.scheduler_words import failure
from extender.placement.facts import NodeFacts, PodFacts, read_pod
from extender.placement.layout import Layouts
from extender.placement.nodes import read_node
from gpus.annotations import GPU_SELECTOR
from gpus.model import PodUid
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.objects import Lease, Node, Object, Pod
from kube.wire import convert

SYSTEM_NAMESPACE = "gpudetour-system"
_SYSTEM = f"namespaces/{SYSTEM_NAMESPACE}"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
#: Pods that hold GPUs now; the label is the webhook's.
_HOLDING = {
    "labelSelector": GPU_SELECTOR,
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
#: Pods of a page: in large pages the API server writes all of them sooner, and after small ones we
#: can begin sooner to understand them.
_PAGE = "2000"
#: Calls at a time; each is one list of its own.
_PARALLEL = 6

T = TypeVar("T")


def read_facts(client: Client, namespace: str, name: str) -> Facts:
    """Read what decides the fate of a pod.

    Raises `KubeError` where the API server does not answer, or refuses the pod itself.
    """
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    reader = _Reader(client)
    now = client.server_time()
    try:
        raw = client.get(path)
    except NotFound:
        return _of_a_missing_pod(reader, namespace, name, now)
    pod = convert(raw, Pod)
    spec = mapping(mapping(raw).get("spec"))
    if pod.spec.node_name:
        return _of_a_placed_pod(reader, pod, spec, now)
    return _of_a_waiting_pod(reader, pod, spec, now)


def read_node_facts(client: Client, name: str) -> tuple[Facts, Node]:
    """Read what decides whether a node takes GPU pods, and the node itself.

    Raises `KubeError` where there is no such node, or the API server refuses it.
    """
    reader = _Reader(client)
    node = client.get(f"/api/v1/nodes/{name}", type=Node)
    on_node = {**_HOLDING, "fieldSelector": f"spec.nodeName={name}"}
    found = reader.all(
        gpu_pods=reader.items("/api/v1/pods", Pod, on_node),
        leases=reader.by_name(f"/apis/coordination.k8s.io/v1/{_SYSTEM}/leases", Lease),
    )
    now = client.server_time()
    return Facts(namespace="", name="", now=now, unreadable=reader.unreadable, **found), node


class _Reader:
    """Makes calls that may be refused, several at a time, and keeps count of refusals."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.unreadable: dict[str, str] = {}

    def all(self, **calls: Callable[[], Any]) -> dict[str, Any]:
        """Return what each call returned, None for those that were refused."""
        with ThreadPoolExecutor(_PARALLEL) as pool:
            futures = {name: pool.submit(self._try, name, call) for name, call in calls.items()}
            return {name: future.result() for name, future in futures.items()}

    def _try(self, name: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except KubeError as error:
            self.unreadable[name.replace("_", " ")] = str(error)
            return None

    def items(
        self, path: str, kind: type[T], params: Mapping[str, str] | None = None
    ) -> Callable[[], tuple[T, ...]]:
        """Return a call that reads a whole collection."""
        return lambda: tuple(self.client.list_all(path, type=kind, params=params).items)

    def by_name(self, path: str, kind: type[T]) -> Callable[[], dict[str, T]]:
        """Return a call that reads a whole collection by the names of its objects."""

        def read() -> dict[str, T]:
            found = self.client.list_all(path, type=kind).items
            return {each.metadata.name: each for each in found}  # type: ignore[attr-defined]

        return read

    def names(self, path: str) -> Callable[[], frozenset[str]]:
        """Return a call that reads the names of a collection."""
        read = self.by_name(path, Object)
        return lambda: frozenset(read())

    def exists(self, path: str) -> Callable[[], bool]:
        """Return a call that tells whether an object is there."""

        def read() -> bool:
            try:
                self.client.get(path, type=Object)
            except NotFound:
                return False
            return True

        return read


def _of_a_missing_pod(reader: _Reader, namespace: str, name: str, now: datetime) -> Facts:
    events = f"/api/v1/namespaces/{namespace}/events"
    found = reader.all(
        refusals=reader.items(events, Event, {"fieldSelector": "reason=FailedCreate"}),
        quotas=reader.items(f"/api/v1/namespaces/{namespace}/resourcequotas", Quota),
        runtime_classes=reader.names("/apis/node.k8s.io/v1/runtimeclasses"),
        webhook_configured=reader.exists(f"{_ADMISSION}/mutatingwebhookconfigurations/gpudetour"),
        deployments=reader.by_name(f"/apis/apps/v1/{_SYSTEM}/deployments", Deployment),
    )
    return Facts(namespace=namespace, name=name, now=now, unreadable=reader.unreadable, **found)


def _of_a_placed_pod(reader: _Reader, pod: Pod, spec: Mapping[str, Any], now: datetime) -> Facts:
    node = f"/api/v1/nodes/{pod.spec.node_name}"
    found = reader.all(
        nodes=lambda: (reader.client.get(node, type=Node),),
        events=_events(reader, pod),
        runtime_classes=reader.names("/apis/node.k8s.io/v1/runtimeclasses"),
    )
    return Facts(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        now=now,
        pod=pod,
        spec=spec,
        unreadable=reader.unreadable,
        **found,
    )


def _of_a_waiting_pod(reader: _Reader, pod: Pod, spec: Mapping[str, Any], now: datetime) -> Facts:
    found = reader.all(
        gpu_pods=lambda: _holders(reader.client),
        nodes=lambda: _nodes(reader.client),
        events=_events(reader, pod),
        leases=reader.by_name(f"/apis/coordination.k8s.io/v1/{_SYSTEM}/leases", Lease),
        deployments=reader.by_name(f"/apis/apps/v1/{_SYSTEM}/deployments", Deployment),
        runtime_classes=reader.names("/apis/node.k8s.io/v1/runtimeclasses"),
        fence=lambda: _fence(reader.client),
    )
    found["nodes"], found["node_facts"] = found["nodes"] or (None, {})
    found["gpu_pods"], found["pod_facts"] = found["gpu_pods"] or (None, {})
    facts = Facts(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        now=now,
        pod=pod,
        spec=spec,
        unreadable=reader.unreadable,
        **found,
    )
    failed = failure(scheduling_message(facts))
    if failed is None or failed.cause is not Cause.CERTIFICATE:
        return facts  # Secrets are read only where they can tell something
    secrets = reader.all(certificates=lambda: read_certificates(reader.client))
    return replace(facts, certificates=secrets["certificates"])


def _holders(client: Client) -> tuple[tuple[Pod, ...], dict[PodUid, PodFacts]]:
    """Read the pods that hold GPUs, and understand each page while the next one is written out."""

    def understand(page: Sequence[Pod]) -> list[PodFacts]:
        return [read_pod(pod) for pod in page]

    pods: list[Pod] = []
    with ThreadPoolExecutor(1) as pool:
        understood = []
        for page in client.pages("/api/v1/pods", type=Pod, params={**_HOLDING, "limit": _PAGE}):
            pods += page.items
            understood.append(pool.submit(understand, page.items))
        facts = {found.uid: found for each in understood for found in each.result()}
    return tuple(pods), facts


def _nodes(client: Client) -> tuple[tuple[Node, ...], dict[str, NodeFacts]]:
    """Read the nodes, and understand them while the API server still writes out the pods."""
    nodes = tuple(client.list_all("/api/v1/nodes", type=Node).items)
    layouts = Layouts()
    return nodes, {node.metadata.name: read_node(node, layouts=layouts) for node in nodes}


def _events(reader: _Reader, pod: Pod) -> Callable[[], tuple[Event, ...]]:
    path = f"/api/v1/namespaces/{pod.metadata.namespace}/events"
    about = {"fieldSelector": f"involvedObject.uid={pod.metadata.uid}"}
    return reader.items(path, Event, about)


class _ParamRef(msgspec.Struct):
    name: str = ""


class _BindingSpec(msgspec.Struct, rename="camel"):
    policy_name: str = ""
    param_ref: _ParamRef | None = None


class _Binding(msgspec.Struct):
    spec: _BindingSpec


def _fence(client: Client) -> Fence:
    policies = client.list_all(f"{_ADMISSION}/validatingadmissionpolicies", type=Object).items
    names = {policy.metadata.name for policy in policies}
    path = f"{_ADMISSION}/validatingadmissionpolicybindings"
    bindings = [each.spec for each in client.list_all(path, type=_Binding).items]
    bound = {each.policy_name for each in bindings}
    params = [
        each.param_ref.name
        for each in bindings
        if each.policy_name == FENCE_POLICIES[0] and each.param_ref is not None
    ]
    return Fence(policies=frozenset(names & bound), account=params[0] if params else None)

"""What the token of a node agent is good for in wrong hands; and who else might say what GPUs a
node has.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from gpus.annotations import GPU_LABEL
from localcluster import shipped
from localcluster.stack import EXTENDER, NAMESPACE
from nodeagent.node import FIELD_MANAGER, OwnNode, removal_of
from nodeagent.publisher import Condition, Wanted, plan
from tests.cluster.fence import ACCOUNT
from tests.manifests.attempts import Attempt, allowed, refused, rows
from tests.manifests.door import APPLY, JSON_PATCH, Object, Request
from tests.manifests.guarded import CA, LEASES, NODES, TEAM, Guarded, gpu_pod, pods

pytestmark = pytest.mark.controlplane

OWN, OTHER = NODES
POLICY, INVENTORY, HEARTBEATS = "gpudetour-nodes", "gpudetour-inventory", "gpudetour-heartbeats"
DEPARTURE, RBAC_GROUP = "gpudetour-departure", "rbac.authorization.k8s.io"
ROLES = f"/apis/{RBAC_GROUP}/v1/clusterroles"
BINDINGS = f"/apis/{RBAC_GROUP}/v1/clusterrolebindings"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
CA_KEY = f"{SECRETS}/{CA}"
SPOOFED = {"gpudetour.io/inventory": '{"v":1,"source":"nvml","gpus":[]}'}


def patch(node: str, body: object, *, kind: str = "", status: bool = False) -> Request:
    path = f"/api/v1/nodes/{node}{'/status' if status else ''}"
    return Request(method="PATCH", path=path, body=body, kind=kind)


def metadata(node: str, *, status: bool = False, **fields: object) -> Request:
    return patch(node, {"metadata": fields}, status=status)


def told(node: str, *, status: bool = False) -> Request:
    """A claim that the node has no GPUs."""
    return metadata(node, status=status, annotations=SPOOFED)


def label(key: str, value: str | None) -> Request:
    return metadata(OWN, labels={key: value})


def status(node: str, **fields: object) -> Request:
    kind = "application/strategic-merge-patch+json"
    return patch(node, {"status": fields}, status=True, kind=kind)


def condition(kind: str) -> list[Object]:
    return [{"type": kind, "status": "False", "reason": "Made", "message": "up"}]


def applied(node: str, **body: object) -> Request:
    body = {"apiVersion": "v1", "kind": "Node", **body}
    apply = f"fieldManager={FIELD_MANAGER}&force=true"
    path = f"/api/v1/nodes/{node}"
    return Request(method="PATCH", path=path, body=body, kind=APPLY, query=apply)


def lease(name: str, *, create: bool = False) -> Request:
    if create:
        return Request(method="POST", path=LEASES, body={"metadata": {"name": name}, "spec": {}})
    spec = {"spec": {"leaseTransitions": 3}}
    return Request(method="PATCH", path=f"{LEASES}/{name}", body=spec)


def begun() -> Request:
    """What the leader of another epoch would write."""
    metadata = {"annotations": {"gpudetour.io/epoch": "3"}}
    return Request(method="PATCH", path=ACCOUNT, body={"metadata": metadata})


def granted(name: str, *, of: str = "Namespace", to: str = "default") -> Request:
    """A ClusterRoleBinding like that of the rights that outlive the manifests."""
    namespace = {"apiVersion": "v1", "kind": of, "name": NAMESPACE, "uid": "1-2"}
    body = {
        "metadata": {"name": name, "ownerReferences": [namespace]},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "gpudetour-node-agent"},
        "subjects": [{"kind": "ServiceAccount", "name": to, "namespace": NAMESPACE}],
    }
    return Request(method="POST", path=BINDINGS, body=body)


def role(name: str) -> Request:
    """A ClusterRole with a right that the agent has; others it cannot give (RBAC's own rule)."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "name": NAMESPACE, "uid": "1-2"}
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}
    body = {"metadata": {"name": name, "ownerReferences": [namespace]}, "rules": [rule]}
    return Request(method="POST", path=ROLES, body=body)


ATTACKS = {
    "A14 rights for others": [
        refused("another name", "agent", role("own"), by=DEPARTURE),
        refused("to others", "agent", granted(DEPARTURE, to="gpudetour-webhook"), by=DEPARTURE),
        refused(
            "under another name",
            "agent",
            granted("own"),
            by=DEPARTURE,
        ),
        refused(
            "that stay for ever",
            "agent",
            granted(DEPARTURE, of="Node"),
            by=DEPARTURE,
        ),
        allowed("its own", "agent", role(DEPARTURE)),
    ],
    "A14 another node": [
        refused("annotation", "agent", told(OTHER), by=POLICY),
        refused("label", "agent", metadata(OTHER, labels={GPU_LABEL: None}), by=POLICY),
        refused("by the status", "agent", told(OTHER, status=True), by=POLICY),
        refused(
            "condition", "agent", status(OTHER, conditions=condition("GPUPathHealthy")), by=POLICY
        ),
        refused("capacity", "agent", status(OTHER, capacity={"nvidia.com/gpu": None}), by=POLICY),
        refused(
            "applied",
            "agent",
            applied(OTHER, metadata={"name": OTHER, "annotations": SPOOFED}),
            by=POLICY,
        ),
        refused("heartbeat", "agent", lease(OTHER, create=True), by=HEARTBEATS),
        refused("no node in the token", "agent-of-nowhere", told(OWN), by=POLICY),
        refused("no node in the token", "agent-of-nowhere", lease(OWN, create=True), by=HEARTBEATS),
        refused(
            "deleted", "agent", Request(method="DELETE", path=f"/api/v1/nodes/{OTHER}"), by="RBAC"
        ),
        allowed("annotation", "agent", told(OWN)),
        allowed("label", "agent", metadata(OWN, labels={GPU_LABEL: None})),
        allowed("by the status", "agent", told(OWN, status=True)),
        allowed("condition", "agent", status(OWN, conditions=condition("GPUPathHealthy"))),
        allowed("capacity", "agent", status(OWN, capacity={"nvidia.com/gpu": None})),
        allowed("heartbeat", "agent", lease(OWN, create=True)),
    ],
    "A14 what is not the agent's on its own node": [
        refused("unschedulable", "agent", patch(OWN, {"spec": {"unschedulable": True}}), by=POLICY),
        refused(
            "taint",
            "agent",
            patch(OWN, {"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}),
            by=POLICY,
        ),
        refused("provider", "agent", patch(OWN, {"spec": {"providerID": "made-up"}}), by=POLICY),
        refused("finalizer", "agent", metadata(OWN, finalizers=["example.org/a"]), by=POLICY),
        refused(
            "owner",
            "agent",
            metadata(
                OWN,
                ownerReferences=[{"apiVersion": "v1", "kind": "Node", "name": OTHER, "uid": "x"}],
            ),
            by=POLICY,
        ),
        refused(
            "annotation", "agent", metadata(OWN, annotations={"example.org/a": "b"}), by=POLICY
        ),
        refused("label", "agent", label("example.org/a", "b"), by=POLICY),
        refused("hostname", "agent", label("kubernetes.io/hostname", OTHER), by=POLICY),
        refused("label gone", "agent", label("kubernetes.io/hostname", None), by=POLICY),
        refused("admin's wish", "agent", label("gpudetour.io/path", None), by=POLICY),
        refused("vendor's label", "agent", label("nvidia.com/vgpu", "x"), by=POLICY),
        refused(
            "label by the status",
            "agent",
            metadata(OWN, status=True, labels={"example.org/a": "b"}),
            by=POLICY,
        ),
        refused("ready", "agent", status(OWN, conditions=condition("Ready")), by=POLICY),
        refused("GPUs", "agent", status(OWN, allocatable={"nvidia.com/gpu": "8"}), by=POLICY),
        refused(
            "new GPUs", "agent", status(OWN, capacity={"nvidia.com/mig-1g.5gb": "7"}), by=POLICY
        ),
        refused("CPUs", "agent", status(OWN, capacity={"cpu": "64"}), by=POLICY),
        refused("no CPUs", "agent", status(OWN, allocatable={"cpu": None}), by=POLICY),
        refused("no resources", "agent", status(OWN, capacity=None), by=POLICY),
        refused(
            "address",
            "agent",
            status(OWN, addresses=[{"type": "InternalIP", "address": "192.0.2.1"}]),
            by=POLICY,
        ),
        refused("images", "agent", status(OWN, images=[{"names": ["a"]}]), by=POLICY),
        refused(
            "kubelet's port",
            "agent",
            status(OWN, daemonEndpoints={"kubeletEndpoint": {"Port": 1}}),
            by=POLICY,
        ),
        refused("the fence", "agent", begun(), by="RBAC"),
        refused("the lead", "agent", lease(EXTENDER), by=HEARTBEATS),
        refused("another lead", "agent", lease("gpudetour-scheduler", create=True), by=HEARTBEATS),
        refused("another lease", "agent", lease("any", create=True), by=HEARTBEATS),
        allowed("feature label", "agent", label("nvidia.com/gpu.count", "8")),
        allowed("feature label", "agent", label("nvidia.com/mig-1g.5gb.count", "1")),
        allowed("model label", "agent", label("gpudetour.io/product.NVIDIA-L4", "2")),
        allowed("the fence", "cluster-admin", begun()),
        allowed("the lead", "cluster-admin", lease(EXTENDER)),
        allowed("taint", "cluster-admin", patch(OWN, {"spec": {"unschedulable": True}})),
    ],
    "A15 what else the token opens": [
        refused(
            "pod", "agent", Request(method="POST", path=pods(TEAM), body=gpu_pod("a")), by="RBAC"
        ),
        refused(
            "pod of ours",
            "agent",
            Request(method="POST", path=pods(NAMESPACE), body=gpu_pod("a")),
            by="RBAC",
        ),
        refused("pod gone", "agent", Request(method="DELETE", path=f"{pods()}/held"), by="RBAC"),
        refused("secrets", "agent", Request(method="GET", path="/api/v1/secrets"), by="RBAC"),
        refused("ConfigMaps", "agent", Request(method="GET", path="/api/v1/configmaps"), by="RBAC"),
        refused(
            "token",
            "agent",
            Request(
                method="POST",
                path=f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{EXTENDER}/token",
                body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
            ),
            by="RBAC",
        ),
        refused(
            "event of a pod",
            "agent",
            Request(method="POST", path=f"/api/v1/namespaces/{TEAM}/events", body={}),
            by="RBAC",
        ),
        allowed("pods of the node", "agent", Request(method="GET", path="/api/v1/pods")),
    ],
    "A16 the key of the authority": [
        *(
            refused("read", who, Request(method="GET", path=CA_KEY), by="RBAC")
            for who in ("user", "agent", "webhook", "extender", "kubelet", "network-plugin")
        ),
        refused("all read", "certs", Request(method="GET", path=SECRETS), by="RBAC"),
        refused("another", "certs", Request(method="GET", path=f"{SECRETS}/other"), by="RBAC"),
        allowed("read", "certs", Request(method="GET", path=CA_KEY)),
    ],
    "A17 spoofed by a kubelet or another writer of nodes": [
        refused("inventory", "kubelet", told(OWN), by=INVENTORY),
        refused("by the status", "kubelet", told(OWN, status=True), by=INVENTORY),
        refused(
            "inventory gone",
            "kubelet",
            metadata(OWN, annotations={"gpudetour.io/path": None}),
            by=INVENTORY,
        ),
        refused("inventory", "network-plugin", told(OTHER), by=INVENTORY),
        refused("inventory", "extender", told(OTHER), by="RBAC"),
        allowed("own label", "kubelet", label("example.org/a", "b")),
        allowed("own note", "network-plugin", metadata(OTHER, annotations={"example.org/a": "b"})),
        allowed(
            "by hand", "cluster-admin", metadata(OTHER, annotations={"gpudetour.io/path": None})
        ),
        allowed("by who was granted it", "node-editor", told(OTHER)),
        allowed("inventory", "agent", told(OWN)),
    ],
}


@pytest.mark.parametrize("attempt", rows(ATTACKS))
def test_the_api_server_tells_attacks_from_what_is_due(guard: Guarded, attempt: Attempt) -> None:
    assert guard.told(attempt.who, attempt.request) == attempt.by


def test_all_that_an_agent_really_writes_is_allowed(guard: Guarded) -> None:
    stored = guard.cluster.api.get(f"/api/v1/nodes/{OWN}")
    node = msgspec.convert(stored, OwnNode, strict=False)
    wanted = Wanted(
        annotations={"gpudetour.io/inventory": "x", "gpudetour.io/summary": "y"},
        labels={GPU_LABEL: "true"},
        features={"nvidia.com/gpu.count": "8", "nvidia.com/cuda.driver.major": "580"},
        condition=Condition(status=True, reason="Works", message="all is well"),
    )
    todo = plan(node, wanted, now=datetime.now(UTC))
    removal = removal_of(["nvidia.com/gpu"], node)
    assert all([todo.metadata, todo.leftovers, todo.status, removal])
    path, query = f"/api/v1/nodes/{OWN}", f"fieldManager={FIELD_MANAGER}&force=true"

    for request in (
        Request(method="PATCH", path=path, body=todo.metadata, kind=APPLY, query=query),
        Request(method="PATCH", path=path, body=todo.leftovers),
        Request(method="PATCH", path=f"{path}/status", body=todo.status, kind=APPLY, query=query),
        Request(method="PATCH", path=f"{path}/status", body=removal, kind=JSON_PATCH),
    ):
        assert guard.told("agent", request) == ""


def test_no_pod_of_ours_is_given_the_key_of_the_authority() -> None:
    """Kubelet hands out what a pod mounts, whatever the rights of its account."""
    for workload in shipped.objects("Deployment", "DaemonSet", "Job"):
        assert CA not in json.dumps(workload["spec"]["template"])

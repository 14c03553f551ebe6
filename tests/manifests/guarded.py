"""A control plane with the shipped policies and rights, and without a webhook: what stands in the
way of an attack when nothing of ours runs. Two nodes, a team, and a pod of it that holds a GPU.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpus.annotations import DEVICES_FROM, GPU_LABEL, encode_assigned
from gpus.model import Assignment, DeviceId
from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.shipped import Variant
from localcluster.simulated import NodeTemplate
from localcluster.stack import AGENT, AGENT_ACCOUNT, CERTS, EXTENDER, NAMESPACE, WEBHOOK
from localcluster.waiting import until
from tests.cluster.fence import ACCOUNT
from tests.manifests.choices import rights_to_evict
from tests.manifests.door import Door, Identity, Object, Request, bearing, standing_for

TEAM, CLOSED, WARNED = "team", "team-closed", "team-warned"
NODES = ("node-a", "node-b")
EPOCH = 7
HELD = "held"
DEVICES = f"gpudetour-devices-{'h' * 20}"
CA = "gpudetour-ca"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"

#: The Lease by which it leads.
_LEASE = {Variant.BASE: EXTENDER, Variant.SECOND_SCHEDULER: "gpudetour-scheduler"}
_RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """The cluster and everybody who may try something there."""

    cluster: LocalCluster
    door: Door
    #: By short names: `user`, `cluster-admin`, `agent` (on node-a), `extender`, …
    people: Mapping[str, Identity]

    def told(self, who: str, request: Request) -> str:
        """Return who refuses a request; empty when it would be stored."""
        return self.door.ask(self.people[who], request).by


def pods(namespace: str = TEAM) -> str:
    """Where pods are created."""
    return f"/api/v1/namespaces/{namespace}/pods"


def config_maps(namespace: str = TEAM) -> str:
    """Where ConfigMaps are created."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def plain_pod(name: str, **spec: object) -> Object:
    """A pod without GPUs, which no scheduler takes."""
    container = {"name": "main", "image": "gpudetour.local/box:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {}, "annotations": {}},
        "spec": {"containers": [container], "schedulerName": "nobody", **spec},
    }


def gpu_pod(name: str, devices: str = f"gpudetour-devices-{'a' * 20}", **spec: object) -> Object:
    """A pod that asks for a GPU, as the webhook leaves it."""
    pod = plain_pod(name, **spec)
    key = {"name": devices, "key": "main", "optional": True}
    pod["metadata"]["labels"] = {GPU_LABEL: "true"}
    pod["metadata"]["annotations"] = {DEVICES_FROM: devices}
    pod["spec"] |= {"nodeSelector": {GPU_LABEL: "true"}, "runtimeClassName": "nvidia"}
    pod["spec"]["containers"][0] |= {
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": key}}],
    }
    return pod


def changed(pod: Object, **metadata: Mapping[str, object]) -> Object:
    """The pod with more labels or annotations."""
    pod = copy.deepcopy(pod)
    for field, more in metadata.items():
        pod["metadata"][field] = {**pod["metadata"].get(field, {}), **more}
    return pod


def assigned(epoch: int = EPOCH) -> str:
    """The annotation that gives the container `main` a GPU."""
    return encode_assigned(
        Assignment(epoch=epoch, containers={"main": (DeviceId("GPU-held"),)}, share_bytes=0)
    )


def binding(name: str, *, epoch: int | None = EPOCH, **annotations: str) -> Object:
    """A Binding to node-a; of an epoch as the extender makes it, without one as others do."""
    metadata: Object = {"name": name, "annotations": annotations}
    if epoch is not None:
        metadata["labels"] = {GPU_LABEL: "true"}
        metadata["annotations"] = {**annotations, "gpudetour.io/assigned": assigned(epoch)}
    target = {"apiVersion": "v1", "kind": "Node", "name": NODES[0]}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}


def device_list(name: str = DEVICES, *, epoch: int = EPOCH) -> Object:
    """The ConfigMap of the pod that holds a GPU."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "labels": {GPU_LABEL: "true"},
            "annotations": {
                "gpudetour.io/assigned": assigned(epoch),
                "gpudetour.io/node": NODES[0],
            },
        },
        "immutable": True,
        "data": {"main": "GPU-held"},
    }


@contextmanager
def guarded(folder: Path, variant: Variant = Variant.BASE) -> Iterator[Guarded]:
    """Run the cluster, with a variant and the right to evict, and none of the processes."""
    # No plugin taints the nodes, which nobody keeps alive.
    options = ControlPlaneOptions(node_lifecycle=False)
    with LocalCluster(folder / "cluster", options=options) as cluster:
        cluster.apply(shipped.cluster_objects(variant))
        kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
        cluster.apply(shipped.objects(*kinds, variant=variant))
        cluster.apply(rights_to_evict())
        _furnish(cluster, lease=_LEASE[variant])
        door = Door(cluster)
        try:
            site = Guarded(cluster=cluster, door=door, people=_people(cluster))
            _wait_until_in_force(site)
            _hold_a_gpu(site)
            yield site
        finally:
            door.close()


def _furnish(cluster: LocalCluster, *, lease: str) -> None:
    api = cluster.api
    own = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{AGENT_ACCOUNT}"
    cluster.wait_for(own, bool)
    template = NodeTemplate(
        capacity={"cpu": "8", "memory": "32Gi", "pods": "20", "nvidia.com/gpu": "0"},
        labels={GPU_LABEL: "true", "gpudetour.io/path": "annotation"},
        annotations={"gpudetour.io/path": "annotation", "gpudetour.io/inventory": "{}"},
    )
    cluster.create_bare_nodes(NODES, template)
    for node in NODES:
        _fill(cluster, f"/api/v1/nodes/{node}")
    access = {
        CLOSED: {"gpudetour.io/host-access": "deny"},
        WARNED: {"gpudetour.io/host-access": "x"},
    }
    for name in (TEAM, CLOSED, WARNED):
        metadata = {"name": name, "labels": access.get(name, {})}
        api.create("/api/v1/namespaces", {"metadata": metadata})
        cluster.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
        cluster.wait_for(f"{config_maps(name)}/kube-root-ca.crt", bool)
        _grant(cluster, "user", role="admin", namespace=name)
    api.create(LEASES, {"metadata": {"name": lease}, "spec": {"leaseTransitions": EPOCH}})
    api.patch(ACCOUNT, {"metadata": {"annotations": {"gpudetour.io/epoch": str(EPOCH)}}})
    api.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": CA}})
    for name, resources, verbs in (
        ("other-scheduler", ["pods/binding"], ["create"]),
        ("network-plugin", ["nodes", "nodes/status"], ["patch"]),
        ("node-editor", ["nodes"], ["patch", "write-gpudetour-annotations"]),
        # Not even the admins of a namespace have it by themselves.
        ("user", ["pods/ephemeralcontainers"], ["patch"]),
    ):
        rules = [{"apiGroups": [""], "resources": resources, "verbs": verbs}]
        api.create(f"{_RBAC}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        _grant(cluster, name, role=name)


def _fill(cluster: LocalCluster, node: str) -> None:
    """Let a Node say much, so that rules that compare all of it are tried at that size.

    Annotations may have 256 KiB; images have no limit where kubelet's is lifted.
    """
    images = [f"example.org/{'long' * 20}/{n}@sha256:{'0' * 64}" for n in range(1000)]
    annotations = {f"example.org/{n}": "x" * 1000 for n in range(200)}
    cluster.api.patch(node, {"metadata": {"annotations": annotations}})
    status = {"images": [{"names": [name], "sizeBytes": 1} for name in images]}
    cluster.api.patch(f"{node}/status", {"status": status})


def _grant(cluster: LocalCluster, user: str, *, role: str, namespace: str | None = None) -> None:
    """Grant a user a ClusterRole, in one namespace if one is given."""
    where = f"namespaces/{namespace}/rolebindings" if namespace else "clusterrolebindings"
    group = "rbac.authorization.k8s.io"
    body = {
        "metadata": {"name": f"{role}-{user}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    cluster.api.create(f"{_RBAC}/{where}", body)


def _people(cluster: LocalCluster) -> dict[str, Identity]:
    return {
        "user": standing_for("user"),
        "other-scheduler": standing_for("other-scheduler"),
        "network-plugin": standing_for("network-plugin"),
        "node-editor": standing_for("node-editor"),
        "cluster-admin": standing_for("somebody", "system:masters"),
        "kubelet": standing_for(f"system:node:{NODES[0]}", "system:nodes"),
        "garbage-collector": standing_for(
            "system:serviceaccount:kube-system:generic-garbage-collector"
        ),
        "agent": bearing(AGENT, _token_of_a_pod(cluster, AGENT_ACCOUNT, node=NODES[0])),
        "agent-of-nowhere": bearing(AGENT, _token(cluster, AGENT_ACCOUNT)),
        "extender": bearing(EXTENDER, _token(cluster, EXTENDER)),
        "webhook": bearing(WEBHOOK, _token(cluster, WEBHOOK)),
        "certs": bearing(CERTS, _token(cluster, CERTS)),
    }


def _token_of_a_pod(cluster: LocalCluster, account: str, *, node: str) -> str:
    """The token that kubelet would get for a pod of that account on that node."""
    pod = plain_pod(f"{account}-{node}", nodeName=node, serviceAccountName=account)
    stored = cluster.api.create(pods(NAMESPACE), pod)["metadata"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": stored["name"], "uid": stored["uid"]}
    return _token(cluster, account, boundObjectRef=reference)


def _token(cluster: LocalCluster, account: str, **spec: object) -> str:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    return str(cluster.api.create(path, request)["status"]["token"])


def _wait_until_in_force(site: Guarded) -> None:
    """Rights and policies are read a moment after they are stored, and the fence's epoch after
    that.
    """
    on_host = plain_pod("probe", volumes=[{"name": "d", "hostPath": {"path": "/dev"}}])
    gpus = gpu_pod("probe")
    del gpus["metadata"]["labels"]
    last = {
        "gpudetour-host-access": Request(method="POST", path=pods(CLOSED), body=on_host),
        "gpudetour-admitted": Request(method="POST", path=pods(), body=gpus),
    }
    until(
        lambda: all(site.told("cluster-admin", last[policy]) == policy for policy in last),
        timeout=60,
        what="the policies in force",
    )
    list_ = Request(method="POST", path=config_maps(), body=device_list())
    until(lambda: not site.told("extender", list_), timeout=60, what="the fence in force")
    granted = (
        Request(method="POST", path=pods(WARNED), body=plain_pod("probe")),
        Request(method="PATCH", path=f"{pods()}/none/ephemeralcontainers", body={}),
    )
    until(
        lambda: "RBAC" not in [site.told("user", request) for request in granted],
        timeout=60,
        what="the rights that were granted last",
    )


def _hold_a_gpu(site: Guarded) -> None:
    """Let a pod be bound by the extender, with its ConfigMap, and others wait."""
    api = site.cluster.api
    for pod in (gpu_pod(HELD, DEVICES), gpu_pod("waiting"), plain_pod("plain")):
        api.create(pods(), pod)
    api.create(pods(CLOSED), plain_pod("idle"))
    asking = ("--as", f"system:serviceaccount:{NAMESPACE}:{EXTENDER}", "-f", "-")
    for path, body in ((config_maps(), device_list()), (f"{pods()}/{HELD}/binding", binding(HELD))):
        site.cluster.kubectl("create", "--raw", path, *asking, stdin=json.dumps(body))

"""What the tests of the second scheduler ask of the cluster, and do in the place of others."""

from __future__ import annotations

import json
import time

from extender.binding import handover
from gpus.annotations import encode_in_use
from gpus.model import Assignment, DeviceId, NodeName, PodUid
from kube.client import Client
from kube.connection import connect
from localcluster.secondscheduler import Replica
from localcluster.stack import EXTENDER, NAMESPACE, Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, annotations_of
from tests.cluster.watching import shown

OURS = "gpudetour-scheduler"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{OURS}"
GPU = "nvidia.com/gpu"
#: A node whose agent is silent to kubelet, so on the annotation path.
CARDS = "cards"
#: A node on which kubelet's plugin gives four GPUs out.
PLUGIN = "plugin"
#: What GKE does: critical pods only where a quota allows them (apiserver.config.k8s.io/v1).
CRITICAL_PODS_NEED_QUOTA = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AdmissionConfiguration",
    "plugins": [
        {
            "name": "ResourceQuota",
            "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "ResourceQuotaConfiguration",
                "limitedResources": [
                    {
                        "resource": "pods",
                        "matchScopes": [
                            {
                                "scopeName": "PriorityClass",
                                "operator": "In",
                                "values": ["system-node-critical", "system-cluster-critical"],
                            }
                        ],
                    }
                ],
            },
        }
    ],
}
#: kube-scheduler's Lease runs for 12 s; the other one looks every second or two.
TAKEOVER = 40.0


def tell_plugin_path(stack: Stack, *, in_use: dict[str, str]) -> None:
    """Say of the node with the plugin what its agent would say of it."""
    holders = {DeviceId(device): PodUid(uid) for device, uid in in_use.items()}
    metadata = {
        "labels": {"gpudetour.io/gpu": "true"},
        "annotations": {
            "gpudetour.io/path": "plugin",
            "gpudetour.io/in-use": encode_in_use(holders),
            "gpudetour.io/summary": f"told at {time.monotonic()}",
        },
    }
    stack.cluster.api.patch(f"/api/v1/nodes/{PLUGIN}", {"metadata": metadata})


def serving(replicas: dict[str, Replica], *, other_than: str = "") -> str:
    """Wait until one of the pods serves, and return its name."""

    def who() -> str | None:
        names = (name for name, replica in replicas.items() if name != other_than)
        return next((name for name in names if replicas[name].serves()), None)

    return until(who, timeout=TAKEOVER, what=f"a pod other than {other_than!r} that serves")


def wait_for_free(replica: Replica, count: int) -> None:
    """Wait until the extender that leads counts so many GPUs free on all nodes together."""
    name = f'devices{{resource="{GPU}",state="free"}}'
    until(
        lambda: shown(replica.side_url, name) == count,
        timeout=TAKEOVER,
        what=f"{count} free GPUs for the extender",
    )


def lease(stack: Stack) -> Object:
    """The spec of kube-scheduler's Lease."""
    spec: Object = stack.cluster.api.get(LEASE)["spec"]
    return spec


def on(node: str, pod: Object) -> Object:
    """The pod, for that node only."""
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
    return pod


def epoch_of(pod: Object) -> int:
    """The epoch in which a pod was bound."""
    epoch: int = json.loads(annotations_of(pod)["gpudetour.io/assigned"])["epoch"]
    return epoch


def devices_of(pod: Object) -> list[str]:
    """The devices that the extender chose for a pod."""
    containers = json.loads(annotations_of(pod)["gpudetour.io/assigned"])["containers"]
    return [device for devices in containers.values() for device in devices]


def binder_of(stack: Stack, pod: Object) -> str:
    """Which scheduler says that it bound the pod."""
    events = f"/api/v1/namespaces/{pod['metadata']['namespace']}/events"
    selector = f"involvedObject.uid={pod['metadata']['uid']},reason=Scheduled"

    def said() -> str | None:
        found = stack.cluster.api.get(events, fieldSelector=selector)["items"]
        return next((item["reportingComponent"] for item in found), None)

    return until(said, timeout=30, what="the event of the binding")


def bind_in(stack: Stack, epoch: int, pod: Object) -> None:
    """Bind with the rights of the extender and in an epoch of choice, as a frozen one would."""
    meta = pod["metadata"]
    client = Client(connect(str(stack.cluster.service_account_kubeconfig(NAMESPACE, EXTENDER))))
    body = handover.binding(
        meta["name"],
        namespace=meta["namespace"],
        uid=PodUid(meta["uid"]),
        node=NodeName(CARDS),
        assignment=Assignment(epoch=epoch, containers={"main": (DeviceId("GPU-0"),)}),
    )
    try:
        client.create(handover.binding_path(meta["namespace"], meta["name"]), body)
    finally:
        client.close()

"""What befalls an installation sooner or later, so that every part does all that it ever does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import urllib3

from gpus.annotations import ASSIGNED_NODE, encode_assigned
from gpus.model import Assignment, DeviceId
from localcluster import shipped
from localcluster.api import ApiError
from localcluster.nvml.install import install
from localcluster.stack import EXTENDER, NAMESPACE, WEBHOOK, Stack
from localcluster.waiting import until
from tests.cluster.fence import epoch_in_force
from tests.manifests.choices import rights_to_evict

Object = dict[str, Any]
NODES = ("worker-a", "worker-b")
PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
_UNINSTALLED = {"--daemonset": f"{NAMESPACE}/gpudetour-node-agent"}
_SLICES = "/apis/resource.k8s.io/v1/resourceslices"
_SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
_CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpudetour"


class DailyLife:
    """One cluster with the right to evict; call the methods in any order after `begin`."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._cluster = stack.cluster
        self._api = stack.cluster.api
        self._folder = folder

    def begin(self) -> None:
        """Install everything, with two nodes of two GPUs."""
        self._stack.install()
        self._cluster.apply(rights_to_evict())
        self._cluster.create_simulated_nodes(NODES)
        for node in NODES:
            install(self._folder / node, "2x-rtx-4090", node=node)
            self._stack.start_agent(node, self._folder / node, options=_UNINSTALLED)
        for node in NODES:
            self._cluster.wait_for(f"/api/v1/nodes/{node}", _serves, timeout=90)
        self._cluster.wait_for("/api/v1/namespaces/default/serviceaccounts/default", bool)
        path = "/apis/scheduling.k8s.io/v1/priorityclasses"
        self._api.create(path, {"metadata": {"name": "high"}, "value": 1000})

    def all_is_uninstalled(self) -> None:
        """There is no DaemonSet, so the agents that end clean up their Nodes."""
        for node in NODES:
            self._stack.stop(f"agent-{node}")
            assert "gpudetour.io/inventory" not in self._annotations(node)

    def _annotations(self, node: str) -> Object:
        found: Object = self._api.get(f"/api/v1/nodes/{node}")["metadata"].get("annotations", {})
        return found

    def certificates_are_broken(self) -> None:
        """A Secret and the caBundle are damaged, and mended."""
        secret = f"{_SECRETS}/gpudetour-webhook-tls"
        before = self._api.patch(secret, {"data": {"tls.key": ""}})["data"]
        (*_, last) = self._api.get(_CONFIGURATION)["webhooks"]
        number = len(self._api.get(_CONFIGURATION)["webhooks"]) - 1
        pointer = f"/webhooks/{number}/clientConfig/caBundle"
        self._api.patch(_CONFIGURATION, [{"op": "remove", "path": pointer}], kind="json")
        self._stack.issue_certificates()
        assert self._api.get(secret)["data"] != before
        assert self._api.get(_CONFIGURATION)["webhooks"][number] == last

    def pods_do_not_reach_the_webhook(self) -> None:
        """The webhook's canary tells so, again and again, until they do."""
        (deployment,) = (
            item for item in shipped.objects("Deployment") if item["metadata"]["name"] == WEBHOOK
        )
        deployment["spec"]["replicas"] = 0
        self._cluster.apply([deployment])
        self._stack.stop("webhook")
        self._stack.start_webhook({"--canary-interval": "0.3"})
        patch = [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]
        self._api.patch(_CONFIGURATION, patch, kind="json")
        until(
            lambda: self._counts("WebhookNotCalled", WEBHOOK, namespace=NAMESPACE) > 1,
            timeout=60,
            what="what the canary tells, again",
        )
        self._stack.issue_certificates()
        self._stack.stop("webhook")
        self._stack.start_webhook()
        until(self._admits, timeout=60, what="GPU pods that reach the webhook")

    def _admits(self) -> bool:
        try:
            self._api.create(f"{PODS}?dryRun=All", gpu_pod("probe"))
        except ApiError as error:
            if "gpudetour-admitted" in str(error):
                return False
            raise
        return True

    def a_pod_comes_and_goes(self) -> None:
        """A pod is placed, and deleted."""
        self._api.create(PODS, gpu_pod("ordinary"))
        self._bound("ordinary")
        self._delete("ordinary")

    def a_bind_broke_off(self) -> None:
        """A leader of the past told a pod of devices that are not to be had any more."""
        pod = self._api.create(
            PODS, gpu_pod("resumed", schedulingGates=[{"name": "example.org/a"}])
        )
        metadata = pod["metadata"]
        name = metadata["annotations"]["gpudetour.io/devices-from"]
        epoch = epoch_in_force(self._api)
        gone = Assignment(epoch=epoch, containers={"main": (DeviceId("GPU-gone"),)}, share_bytes=0)
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "resumed", "uid": metadata["uid"]}
        left = {
            "metadata": {
                "name": name,
                "labels": {"gpudetour.io/gpu": "true"},
                "annotations": {
                    "gpudetour.io/assigned": encode_assigned(gone),
                    ASSIGNED_NODE: NODES[0],
                },
                "ownerReferences": [owner],
            },
            "immutable": True,
            "data": {"main": "GPU-gone"},
        }
        account = self._cluster.service_account_kubeconfig(NAMESPACE, EXTENDER)
        command = ("create", "--raw", CONFIG_MAPS, "-f", "-", f"--kubeconfig={account}")
        self._cluster.kubectl(*command, stdin=json.dumps(left))
        self._api.patch(f"{PODS}/resumed", {"spec": {"schedulingGates": None}})
        self._bound("resumed")
        assert self._api.get(f"{CONFIG_MAPS}/{name}")["data"] != left["data"]
        self._delete("resumed")

    def a_pod_is_gone_before_its_bind(self) -> None:
        """The scheduler asks for a pod that nobody knows."""
        client = self._stack.certificates / "scheduler-client"
        args = {"PodName": "ghost", "PodNamespace": "default", "PodUID": "u", "Node": NODES[0]}
        with urllib3.PoolManager(
            ca_certs=str(client / "ca.crt"),
            cert_file=str(client / "tls.crt"),
            key_file=str(client / "tls.key"),
        ) as pool:
            answer = pool.request("POST", f"{self._stack.extender_url}/bind", json=args)
        assert "gone" in answer.json()["Error"]

    def others_bind(self) -> None:
        """Somebody else binds a GPU pod: nobody knows what it holds, then it is known, then not."""
        node = self._api.get(f"/api/v1/nodes/{NODES[0]}")
        for name in ("told-twice", "reference"):
            bare = {
                "metadata": {
                    "name": name,
                    "labels": node["metadata"]["labels"] | {"kubernetes.io/hostname": name},
                    "annotations": {
                        key: text
                        for key, text in node["metadata"]["annotations"].items()
                        if key.startswith("gpudetour.io/")
                    },
                },
                "spec": {"unschedulable": True},
            }
            self._api.create("/api/v1/nodes", bare)
        self._bind_elsewhere("foreign", "told-twice")
        until(lambda: self._told("foreign"), timeout=60, what="GPUsUnknown")
        rounds = iter(range(100))

        def told_again() -> bool:
            self._set_path("told-twice", "plugin")
            # The extender looks at all nodes at once: it has seen the change when it tells of this.
            other = f"foreign-{next(rounds)}"
            self._bind_elsewhere(other, "reference")
            until(lambda: self._told(other), timeout=60, what="GPUsUnknown of another")
            self._set_path("told-twice", "annotation")
            other = f"foreign-{next(rounds)}"
            self._bind_elsewhere(other, "reference")
            until(lambda: self._told(other), timeout=60, what="GPUsUnknown of another")
            return self._told("foreign") > 1

        until(told_again, timeout=90, what="GPUsUnknown again")
        self._cluster.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
        for name in ("told-twice", "reference"):
            self._api.delete(f"/api/v1/nodes/{name}")

    def another_driver_comes_and_goes(self) -> None:
        """NVIDIA's DRA driver offers the GPUs of a node for a while; its agent stands aside."""
        node = f"/api/v1/nodes/{NODES[0]}"
        offer = {
            "metadata": {"name": "offer"},
            "spec": {
                "driver": "gpu.nvidia.com",
                "nodeName": NODES[0],
                "pool": {"name": NODES[0], "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0"}],
            },
        }
        before = self._counts("GPUPathChanged", NODES[0])
        self._api.create(_SLICES, offer)
        self._cluster.wait_for(node, lambda found: not _serves(found), timeout=60)
        self._api.delete(f"{_SLICES}/offer")
        self._cluster.wait_for(node, _serves, timeout=60)
        until(
            lambda: self._counts("GPUPathChanged", NODES[0]) > before,
            timeout=60,
            what="the same Event again",
        )

    def the_leader_is_replaced(self) -> None:
        """The extender ends, and another one leads; it may evict."""
        self._stack.stop("extender")
        self._stack.start_extender({"--preemption": "evict", "--usage-every": "1"})

    def usage_is_recorded(self) -> None:
        """The leader writes who held how many GPUs, again and again."""
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"

        def versions() -> list[str]:
            return [
                found["metadata"]["resourceVersion"]
                for found in self._api.get(path)["items"]
                if found["metadata"]["name"].startswith("gpudetour-usage-")
            ]

        first = until(versions, timeout=60, what="a record of usage")
        until(lambda: versions() != first, timeout=60, what="the record of usage, changed")

    def an_important_pod_comes(self) -> None:
        """All GPUs are in use, and a pod of high priority evicts two that a budget covers."""
        names = [f"low-{number}" for number in range(2 * len(NODES))]
        for name in names:
            self._api.create(PODS, gpu_pod(name, terminationGracePeriodSeconds=0))
        for name in names:
            self._bound(name)
        budget = {"metadata": {"name": "budget"}, "spec": {"selector": {}, "minAvailable": 1}}
        self._api.create(BUDGETS, budget)
        self._cluster.wait_for(f"{BUDGETS}/budget", _allows_some, timeout=60)
        self._api.create(PODS, gpu_pod("important", gpus=2, priorityClassName="high"))
        self._bound("important")

    def _bind_elsewhere(self, name: str, node: str) -> None:
        self._api.create(PODS, gpu_pod(name, schedulerName="somebody-else"))
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
        self._api.create(f"{PODS}/{name}/binding", binding)

    def _set_path(self, node: str, path: str) -> None:
        change = {"metadata": {"annotations": {"gpudetour.io/path": path}}}
        self._api.patch(f"/api/v1/nodes/{node}", change)

    def _told(self, pod: str) -> int:
        return self._counts("GPUsUnknown", pod)

    def _counts(self, reason: str, name: str, *, namespace: str = "default") -> int:
        selector = f"reason={reason},involvedObject.name={name}"
        found = self._api.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=selector)
        return max((event.get("count", 1) for event in found["items"]), default=0)

    def _bound(self, name: str) -> None:
        self._cluster.wait_for(f"{PODS}/{name}", lambda pod: "nodeName" in pod["spec"], timeout=60)

    def _delete(self, name: str) -> None:
        self._api.delete(f"{PODS}/{name}", grace_seconds=0)


def gpu_pod(name: str, *, gpus: int = 1, **spec: object) -> Object:
    """A pod as users write it."""
    resources = {"limits": {"nvidia.com/gpu": gpus}}
    container = {"name": "main", "image": "gpudetour.local/cuda:1", "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def _serves(node: Object) -> bool:
    path = node["metadata"].get("annotations", {}).get("gpudetour.io/path")
    return bool(path == "annotation")


def _allows_some(budget: Object) -> bool:
    return bool(budget.get("status", {}).get("disruptionsAllowed"))

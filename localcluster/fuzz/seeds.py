"""Right requests, from which wrong ones are made: what API server and kube-scheduler send. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gpus.annotations import (
    ASSIGNED,
    DEVICES_CONFIG_MAP_PREFIX,
    DEVICES_FROM,
    GPU_LABEL,
    GPU_LABEL_VALUE,
    PREFIX,
)
from gpus.model import GPU_MEMORY_RESOURCE, GPU_RESOURCE, ResourceName
from localcluster.fuzz.mutations import Seeds

Object = dict[str, Any]

#: Of the nodes that the extender under test knows, and one that it does not.
NODES = ("node-00000", "node-00001", "node-00002", "node-00003")
UNKNOWN_NODE = "elsewhere"

_MARKED = {DEVICES_FROM: f"{DEVICES_CONFIG_MAP_PREFIX}{'a' * 20}"}
_ENV = [
    {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
    {"name": "OTHER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
]
_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def _container(name: str, limits: Mapping[ResourceName, str], **more: Any) -> Object:
    resources = {"limits": dict(limits), "requests": dict(limits)}
    return {"name": name, "image": "training", "resources": resources, **more}


def _pod(*containers: Object, annotations: Mapping[str, str] | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "generateName": "train-",
            "namespace": "default",
            "uid": "uid-p",
            "labels": {"app": "train"},
            "annotations": dict(annotations or {}),
            "creationTimestamp": None,
            "managedFields": [{"manager": "kubectl", "operation": "Update", "fieldsV1": {}}],
        },
        "spec": {
            "containers": list(containers),
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "tolerations": [_TOLERATION],
            **spec,
        },
        "status": {},
    }


def pods() -> list[Object]:
    """Pods as users write them: whole GPUs, MIG, shares, wishes, sidecars, and none at all."""
    gpu, cpu, mig = {GPU_RESOURCE: "1"}, ResourceName("cpu"), ResourceName("nvidia.com/mig-1g.10gb")
    wishes = {
        f"{PREFIX}product": "*H100*, *H200*",
        f"{PREFIX}min-memory": "79Gi",
        f"{PREFIX}topology": "nvlink",
        f"{PREFIX}policy": "spread",
    }
    return [
        _pod(_container("main", gpu, env=_ENV)),
        _pod(_container("main", {GPU_RESOURCE: "2", cpu: "500m"}), annotations=wishes),
        _pod(_container("main", {mig: "1"}), nodeSelector={"a": "b"}),
        _pod(_container("main", {GPU_MEMORY_RESOURCE: "8Gi"}), runtimeClassName="nvidia"),
        _pod(
            _container("main", gpu),
            _container("side", {}, env=_ENV),
            initContainers=[_container("init", gpu, restartPolicy="Always")],
            annotations={ASSIGNED: '{"epoch":1}', **_MARKED},
        ),
        _pod(_container("main", {}), runtimeClassName="nvidia-cdi"),
        _pod(
            _container("main", {cpu: "1"}),
            ephemeralContainers=[{"name": "debug", "image": "shell", "env": _ENV}],
            nodeName="node-00000",
        ),
    ]


def reviews() -> Seeds:
    """AdmissionReviews of all of them, and of debug containers and deletions."""
    found = [_review(pod) for pod in pods()]
    changed = pods()[-1]
    changed["spec"]["ephemeralContainers"].append({"name": "other", "image": "shell", "env": _ENV})
    found.append(
        _review(
            changed, operation="UPDATE", subResource="ephemeralcontainers", oldObject=pods()[-1]
        )
    )
    found.append(_review(None, operation="DELETE", oldObject=pods()[0]))
    return _encoded(found)


def _review(pod: Object | None, **request: Any) -> Object:
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    return {
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": kind,
            "name": "p",
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:job-controller"},
            "object": pod,
            "oldObject": None,
            "dryRun": False,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            **request,
        },
    }


def waiting_pods() -> list[Object]:
    """The same pods as the webhook leaves them, each with a UID of its own."""
    found = pods()
    for number, pod in enumerate(found):
        pod["metadata"]["uid"] = f"uid-{number}"
        pod["metadata"]["name"] = f"p-{number}"
        pod["metadata"]["labels"][GPU_LABEL] = GPU_LABEL_VALUE
        marked = f"{DEVICES_CONFIG_MAP_PREFIX}{number:020d}"
        pod["metadata"]["annotations"] |= {DEVICES_FROM: marked}
        pod["metadata"]["annotations"].pop(ASSIGNED, None)
        pod["spec"].pop("nodeName", None)
    return found


def extender_args() -> Seeds:
    """Bodies of filter and prioritize."""
    names = [*NODES, UNKNOWN_NODE]
    return _encoded({"Pod": pod, "Nodes": None, "NodeNames": names} for pod in waiting_pods())


def binding_args() -> Seeds:
    """Bodies of bind."""
    return _encoded(
        {
            "PodName": pod["metadata"]["name"],
            "PodNamespace": "default",
            "PodUID": pod["metadata"]["uid"],
            "Node": node,
        }
        for pod in waiting_pods()
        for node in (*NODES, UNKNOWN_NODE)
    )


def preemption_args() -> Seeds:
    """Bodies of preempt."""
    victims = {"Pods": [{"UID": "uid-0"}, {"UID": "uid-1"}], "NumPDBViolations": 1}
    by_node = dict.fromkeys((*NODES, UNKNOWN_NODE), victims)
    return _encoded({"Pod": pod, "NodeNameToMetaVictims": by_node} for pod in waiting_pods())


def _encoded(bodies: Iterable[Object]) -> Seeds:
    return [msgspec.json.encode(body) for body in bodies]

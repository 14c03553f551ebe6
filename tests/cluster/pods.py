"""Pods as users write them, and what is asked of objects that come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
Create = Callable[[Object], Object]
PodWhen = Callable[[str, Callable[[Object], bool]], Object]


def serves_gpus(node: Object) -> bool:
    """Tell whether the agent of a simulated node has published what it found."""
    return annotations_of(node).get("gpudetour.io/path") == "annotation"


def annotations_of(item: Object) -> dict[str, str]:
    """The annotations of an object, which may have none."""
    return item["metadata"].get("annotations") or {}


def gpu_pod(name: str, *, gpus: int = 1) -> Object:
    """A pod as users write it: the request, and nothing else of ours."""
    container: Object = {
        "name": "main",
        "image": "gpudetour.local/cuda:1",
        "resources": {"limits": {"nvidia.com/gpu": gpus}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container]},
    }


def asking(name: str, limits: Object, **wishes: str) -> Object:
    """A pod whose container has these limits; `min_memory=…` is gpudetour.io/min-memory."""
    pod = gpu_pod(name)
    pod["spec"]["containers"][0]["resources"] = {"limits": limits}
    pod["metadata"]["annotations"] = {
        f"gpudetour.io/{key.replace('_', '-')}": text for key, text in wishes.items()
    }
    return pod


def plain_pod(name: str) -> Object:
    """A pod that has nothing to do with GPUs."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "gpudetour.local/box:1"}]},
    }


def bound(pod: Object) -> bool:
    """Tell whether the pod has a node."""
    return bool(pod["spec"].get("nodeName"))


def refused_for(words: str) -> Callable[[Object], bool]:
    """Tells whether the scheduler says these words of why a pod waits.

    Its first ones may be of nodes that it has not heard all of yet.
    """
    return lambda pod: words in refused(pod)


def refused(pod: Object) -> str:
    """The scheduler's words why a pod waits; empty while it has said nothing."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", ""))
    return ""

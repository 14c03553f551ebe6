"""Pods as users write them, and what is asked of pods that come back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from localcluster.image.make import CUDA_IMAGE

Object = dict[str, Any]

GPU = "nvidia.com/gpu"


def gpu_pod(name: str, **spec: object) -> Object:
    """The pod of the seeds: one GPU, and what users add to it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container({GPU: 1})], "terminationGracePeriodSeconds": 1, **spec},
    }


def container(limits: Mapping[str, int]) -> Object:
    """A container that prints its environment and waits, of an image like CUDA's."""
    return {
        "name": "main",
        "image": CUDA_IMAGE,
        "imagePullPolicy": "Never",
        "resources": {"limits": dict(limits)},
    }


def is_ready(pod: Object) -> bool:
    """Whether all containers of a pod are ready."""
    return condition(pod, "Ready") == "True"


def condition(item: Object, kind: str) -> str | None:
    """The status of a condition of a Node or Pod; None where it has none of that kind."""
    conditions = item["status"].get("conditions") or ()
    return next((each["status"] for each in conditions if each["type"] == kind), None)


def untouched(before: Object, after: Object) -> bool:
    """Whether a pod runs in the very containers in which it ran before."""
    return _containers(before) == _containers(after) and is_ready(after)


def _containers(pod: Object) -> list[tuple[str, str, int]]:
    statuses = pod["status"]["containerStatuses"]
    uid = pod["metadata"]["uid"]
    return [(uid, status["containerID"], status["restartCount"]) for status in statuses]


def assigned(pod: Object) -> dict[str, list[str]]:
    """Container to devices, as the Binding wrote it."""
    text = pod["metadata"]["annotations"]["gpudetour.io/assigned"]
    found: dict[str, list[str]] = json.loads(text)["containers"]
    return found

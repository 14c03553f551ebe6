"""Containers that `kubectl debug` adds to pods, on a real API server with what is shipped."""

from __future__ import annotations

import pytest

from localcluster.api import ApiError
from localcluster.stack import Stack
from tests.cluster.pods import Create, annotations_of, gpu_pod, plain_pod

pytestmark = pytest.mark.controlplane


def debug(stack: Stack, namespace: str, pod: str, name: str) -> str:
    """What kubectl says when it adds a container that wants to see every GPU."""
    return stack.cluster.kubectl(
        *("debug", pod, "-n", namespace, f"--container={name}", "--image=gpudetour.local/box:1"),
        *("--env=NVIDIA_VISIBLE_DEVICES=all", "--profile=general"),
        check=False,
    )


def entry(value: str) -> dict[str, str]:
    return {"name": "NVIDIA_VISIBLE_DEVICES", "value": value}


@pytest.mark.parametrize("kind", ["gpu", "runtime"])
def test_a_debug_container_sees_no_gpu_and_those_before_it_stay(
    stack: Stack, namespace: str, create: Create, kind: str
) -> None:
    pod = gpu_pod("watched") if kind == "gpu" else plain_pod("watched")
    pod["spec"]["runtimeClassName"] = "nvidia"
    before = create(pod)

    said = [debug(stack, namespace, "watched", name) for name in ("one", "two")]

    for words in said:
        assert "env NVIDIA_VISIBLE_DEVICES was overruled" in words
    after = stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/watched")
    assert {one["name"]: one["env"] for one in after["spec"]["ephemeralContainers"]} == {
        "one": [entry("void")],
        "two": [entry("void")],
    }
    assert after["spec"]["containers"] == before["spec"]["containers"]
    assert annotations_of(after).get("gpudetour.io/devices-from") == annotations_of(before).get(
        "gpudetour.io/devices-from"
    )


def test_a_debug_container_of_an_ordinary_pod_is_none_of_our_business(
    stack: Stack, namespace: str, create: Create
) -> None:
    create(plain_pod("plain"))

    assert "Warning" not in debug(stack, namespace, "plain", "one")

    after = stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/pods/plain")
    assert after["spec"]["ephemeralContainers"][0]["env"] == [entry("all")]


def test_a_debug_container_that_asks_for_gpus_is_refused_in_our_words(
    stack: Stack, namespace: str, create: Create
) -> None:
    create(gpu_pod("busy"))
    asking = {
        "name": "more",
        "image": "gpudetour.local/box:1",
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }

    with pytest.raises(ApiError, match=r"'more' asks for nvidia\.com/gpu.*ask in a pod of its own"):
        stack.cluster.api.patch(
            f"/api/v1/namespaces/{namespace}/pods/busy/ephemeralcontainers",
            {"spec": {"ephemeralContainers": [asking]}},
            kind="strategic",
        )

"""Pods that ask for no GPU are left alone, or closed off where they use NVIDIA's runtime."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook.mutating import CLASSES, mutated
from tests.webhook.reviews import Raw, pod

VOID = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
PLAIN: list[Raw] = [{"name": "main", "image": "nginx"}]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"runtimeClassName": "gvisor"},
        {"runtimeClassName": ""},
        {"nodeName": "n1"},
        {"nodeSelector": {"gpudetour.io/gpu": "false"}},
        {
            "containers": [
                {"name": "a", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}
            ]
        },
        {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "0"}}}]},
        {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpudirect": "1"}}}]},
    ],
)
def test_a_pod_without_gpus_and_without_nvidias_runtime_is_returned_as_it_is(
    spec: dict[str, Any],
) -> None:
    before = pod(**{"containers": PLAIN, **spec})

    outcome = mutated(before)

    assert outcome.pod is before
    assert outcome.warnings == ()


@pytest.mark.parametrize(
    ("runtime_class", "classes"),
    [
        ("nvidia", {}),
        ("nvidia", CLASSES),
        ("nvidia-legacy", {}),
        ("gpu-fast", CLASSES),
    ],
)
def test_nvidias_runtime_shows_no_gpu_to_a_pod_that_asked_for_none(
    runtime_class: str, classes: dict[str, str]
) -> None:
    before = pod(
        runtimeClassName=runtime_class,
        nodeName="n1",
        initContainers=[{"name": "warm"}],
        containers=[
            {"name": "main", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]},
            {"name": "zero", "resources": {"limits": {"nvidia.com/gpu": 0}}},
        ],
    )

    outcome = mutated(before, classes)

    assert outcome.pod == pod(
        runtimeClassName=runtime_class,
        nodeName="n1",
        initContainers=[{"name": "warm", "env": [VOID]}],
        containers=[
            {"name": "main", "env": [VOID]},
            {"name": "zero", "resources": {"limits": {"nvidia.com/gpu": 0}}, "env": [VOID]},
        ],
    )
    assert len(outcome.warnings) == 1


def test_a_forged_assignment_goes_from_a_closed_pod_too() -> None:
    before = pod(containers=PLAIN, runtimeClassName="nvidia")
    before["metadata"]["annotations"] = {"gpudetour.io/assigned": "{}"}

    assert mutated(before).pod["metadata"]["annotations"] == {}

"""Pods that ask for no GPU are left alone, or closed off where they use NVIDIA's runtime."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webhook.mutating import CLASSES, mutated, mutator
from tests.webhook.reviews import Raw, pod
from webhook.mutate import Mutated

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


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": "windows"}, "runtimeClassName": "nvidia"},
        {"nodeSelector": {"kubernetes.io/os": "windows"}, "runtimeClassName": "nvidia"},
    ],
)
def test_a_pod_for_windows_is_left_alone(spec: dict[str, Any]) -> None:
    before = pod(**{"containers": PLAIN, **spec})

    assert mutated(before).pod is before
    assert closed(before).pod is before


def closed(before: Raw, classes: dict[str, str] = CLASSES) -> Mutated:
    outcome = mutator(classes).close(before)
    assert isinstance(outcome, Mutated)
    return outcome


@pytest.mark.parametrize(
    "spec", [{}, {"runtimeClassName": ""}, {"runtimeClassName": "new"}, {"nodeName": "n1"}]
)
def test_where_nvidias_runtime_is_the_default_every_pod_is_closed(spec: dict[str, Any]) -> None:
    asked = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]
    before = pod(containers=[{"name": "main", "env": asked}], **spec)

    outcome = closed(before)

    assert outcome.pod == pod(containers=[{"name": "main", "env": [VOID]}], **spec)
    assert len(outcome.warnings) == 1


@pytest.mark.parametrize(
    "before",
    [
        pod(containers=PLAIN, runtimeClassName="gvisor"),
        pod(),
        pod(containers=[{"name": "m", "resources": {"limits": {"nvidia.com/gpu": "x"}}}]),
        pod(containers=[{"name": "m", "resources": {"limits": {"gpudetour.io/x": "1"}}}]),
        {"spec": {"containers": None}},
        {
            "metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"containers": PLAIN},
        },
    ],
)
def test_pods_with_another_runtime_or_with_gpus_and_what_is_no_pod_are_not_closed(
    before: Raw,
) -> None:
    assert closed(before).pod is before


def test_what_probably_means_gpus_is_told_where_we_see_it() -> None:
    limits = {"nvidia.com/gpus": 1, "nvidia.com/GPU": 1, "nvidia.com/gpudirect": 1}
    before = pod(
        containers=[{"name": "main", "resources": {"limits": limits}}], runtimeClassName="nvidia"
    )

    assert mutated(before).warnings == (
        "container 'main', nvidia.com/GPU: did you mean nvidia.com/gpu?",
        "container 'main', nvidia.com/gpus: did you mean nvidia.com/gpu?",
    )

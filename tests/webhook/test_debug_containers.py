"""Containers that `kubectl debug` adds to a running pod see no GPU; those there are stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.webhook.mutating import CLASSES, mutated, mutator
from tests.webhook.reviews import GPU, Raw, pod
from webhook.mutate import Mutated, Refused

VOID = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
PLAIN: list[Raw] = [{"name": "main"}]


def debugged(before: Raw, *containers: Raw, any_runtime: bool = False) -> Mutated | Refused:
    """What becomes of a pod to which these are added, first, as a strategic merge patch does."""
    after = copy.deepcopy(before)
    present = before["spec"].get("ephemeralContainers") or []
    after["spec"]["ephemeralContainers"] = [*containers, *copy.deepcopy(present)]
    return mutator(CLASSES).debug(after, before, any_runtime=any_runtime)


def envs(outcome: Mutated | Refused) -> dict[str, Any]:
    assert isinstance(outcome, Mutated), outcome
    containers = outcome.pod["spec"]["ephemeralContainers"]
    return {container["name"]: container.get("env") for container in containers}


def labelled() -> Raw:
    """A pod that somebody else's webhook made one of ours, as far as can be seen."""
    before = pod(containers=PLAIN)
    before["metadata"]["labels"] = {"gpudetour.io/gpu": "true"}
    return before


@pytest.mark.parametrize(
    "before",
    [
        pod(),
        mutated(pod()).pod,
        labelled(),
        pod(containers=PLAIN, runtimeClassName="nvidia"),
        pod(containers=PLAIN, runtimeClassName="gpu-fast"),
        pod(containers=[{"name": "old", "resources": {"limits": {"nvidia.com/gpu": "what"}}}]),
    ],
)
def test_what_is_added_to_a_pod_that_can_reach_gpus_sees_none(before: Raw) -> None:
    before["spec"]["nodeName"] = "n1"
    before["spec"]["ephemeralContainers"] = [
        {"name": "first", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}
    ]
    env = [{"name": "A", "value": "1"}, {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]

    outcome = debugged(before, {"name": "second", "env": env}, {"name": "third"})

    assert envs(outcome) == {
        "second": [{"name": "A", "value": "1"}, VOID],
        "third": [VOID],
        "first": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
    }
    assert isinstance(outcome, Mutated)
    assert [warning.split(":")[0] for warning in outcome.warnings] == ["container 'second'"]
    assert {**outcome.pod["spec"], "ephemeralContainers": 0} == {
        **before["spec"],
        "ephemeralContainers": 0,
    }


@pytest.mark.parametrize(
    ("spec", "any_runtime", "closed"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"runtimeClassName": "not-heard-of"}, True, True),
        ({"runtimeClassName": "gvisor"}, True, False),
        ({"runtimeClassName": "gvisor"}, False, False),
        ({"os": {"name": "windows"}}, True, False),
        ({"os": {"name": "windows"}, "runtimeClassName": "nvidia"}, True, False),
    ],
)
def test_what_is_added_to_other_pods_is_closed_where_their_runtime_may_be_nvidias(
    spec: Raw, any_runtime: bool, closed: bool
) -> None:
    before = pod(containers=PLAIN, **spec)

    outcome = debugged(before, {"name": "debug"}, any_runtime=any_runtime)

    assert envs(outcome) == {"debug": [VOID] if closed else None}


def test_where_nothing_is_added_nothing_is_changed() -> None:
    before = pod(ephemeralContainers=[{"name": "first", "resources": GPU}])

    outcome = debugged(before)

    assert isinstance(outcome, Mutated)
    assert outcome.pod == before
    assert outcome.warnings == ()


def test_gpus_and_mounts_that_stand_for_them_are_refused_all_at_once() -> None:
    mount = {"name": "v", "mountPath": "/var/run/nvidia-container-devices/all"}
    limits = {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.5gb": 1, "cpu": 1}

    outcome = debugged(
        pod(), {"name": "debug", "resources": {"limits": limits}, "volumeMounts": [mount]}
    )

    assert isinstance(outcome, Refused)
    assert [fault.split(":")[0] for fault in outcome.faults] == [
        "ephemeral container 'debug' asks for nvidia.com/gpu",
        "ephemeral container 'debug' asks for nvidia.com/mig-1g.5gb",
        "container 'debug' mounts a volume at /var/run/nvidia-container-devices/all, where the "
        "NVIDIA runtime reads which GPUs to show",
    ]


def test_an_ordinary_pod_may_mount_what_it_likes() -> None:
    mount = {"name": "v", "mountPath": "/var/run/nvidia-container-devices/all"}

    outcome = debugged(pod(containers=PLAIN), {"name": "debug", "volumeMounts": [mount]})

    assert isinstance(outcome, Mutated)


@pytest.mark.parametrize("any_runtime", [False, True])
def test_what_cannot_be_read_is_refused_but_not_where_only_others_are_closed(
    any_runtime: bool,
) -> None:
    outcome = mutator().debug({"spec": {"containers": 7}}, pod(), any_runtime=any_runtime)

    assert isinstance(outcome, Mutated if any_runtime else Refused)

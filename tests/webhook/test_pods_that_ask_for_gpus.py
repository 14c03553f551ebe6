"""What a pod that asks for GPUs becomes, compared as a whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.webhook.mutating import CLASSES, mutated, mutator
from tests.webhook.reviews import GPU, MARKED, Raw, pod

TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
VOID = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}


def devices(container: str, config_map: str = MARKED) -> Raw:
    reference = {"name": config_map, "key": container, "optional": True}
    return {"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": {"configMapKeyRef": reference}}


def test_the_pod_of_the_tutorial_becomes_schedulable() -> None:
    before = pod()
    untouched = copy.deepcopy(before)

    outcome = mutated(before)

    assert outcome.pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "train-",
            "namespace": "default",
            "creationTimestamp": None,
            "labels": {"gpudetour.io/gpu": "true"},
            "annotations": {"gpudetour.io/devices-from": MARKED},
        },
        "spec": {
            "containers": [
                {"name": "main", "image": "cuda", "resources": GPU, "env": [devices("main")]}
            ],
            "nodeSelector": {"gpudetour.io/gpu": "true"},
            "tolerations": [TOLERATION],
            "runtimeClassName": "nvidia",
        },
        "status": {},
    }
    assert outcome.warnings == ()
    assert before == untouched


def test_every_container_gets_its_own_key_or_void_and_everything_else_stays() -> None:
    before = pod(
        initContainers=[
            {"name": "warm", "resources": GPU, "command": ["x"]},
            {"name": "log", "restartPolicy": "Always", "env": [{"name": "A", "value": "1"}]},
        ],
        containers=[
            {"name": "main", "resources": {"requests": {"nvidia.com/mig-1g.5gb": 1}}},
            {"name": "proxy", "image": "envoy"},
        ],
        nodeSelector={"zone": "a"},
        tolerations=[{"key": "spot", "operator": "Exists"}],
        runtimeClassName="gpu-fast",
        priority=7,
    )
    before["metadata"]["labels"] = {"app": "x", "gpudetour.io/gpu": "maybe"}
    before["metadata"]["annotations"] = {"team": "y"}

    outcome = mutated(before)

    assert outcome.pod["spec"] == {
        "initContainers": [
            {"name": "warm", "resources": GPU, "command": ["x"], "env": [devices("warm")]},
            {
                "name": "log",
                "restartPolicy": "Always",
                "env": [{"name": "A", "value": "1"}, VOID],
            },
        ],
        "containers": [
            {
                "name": "main",
                "resources": {"requests": {"nvidia.com/mig-1g.5gb": 1}},
                "env": [devices("main")],
            },
            {"name": "proxy", "image": "envoy", "env": [VOID]},
        ],
        "nodeSelector": {"zone": "a", "gpudetour.io/gpu": "true"},
        "tolerations": [{"key": "spot", "operator": "Exists"}, TOLERATION],
        "runtimeClassName": "gpu-fast",
        "priority": 7,
    }
    assert outcome.pod["metadata"]["labels"] == {"app": "x", "gpudetour.io/gpu": "true"}
    assert outcome.pod["metadata"]["annotations"] == {
        "team": "y",
        "gpudetour.io/devices-from": MARKED,
    }


def test_a_share_is_served_like_whole_gpus_and_wishes_stay() -> None:
    share = {"limits": {"gpudetour.io/gpu-memory": "8Gi"}}
    before = pod(containers=[{"name": "main", "resources": share}, {"name": "proxy"}])
    wishes = {"gpudetour.io/product": "*L4", "gpudetour.io/policy": "binpack"}
    before["metadata"]["annotations"] = dict(wishes)

    after = mutated(before).pod

    assert after["spec"] == {
        "containers": [
            {"name": "main", "resources": share, "env": [devices("main")]},
            {"name": "proxy", "env": [VOID]},
        ],
        "nodeSelector": {"gpudetour.io/gpu": "true"},
        "tolerations": [TOLERATION],
        "runtimeClassName": "nvidia",
    }
    assert after["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}
    assert after["metadata"]["annotations"] == {**wishes, "gpudetour.io/devices-from": MARKED}


def test_every_variable_that_asks_for_devices_is_overruled_with_a_warning() -> None:
    names = [
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
    ]
    env = [{"name": name, "value": "all"} for name in names]
    harmless = {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "all"}
    before = pod(containers=[{"name": "main", "resources": GPU, "env": [*env, harmless, env[0]]}])

    outcome = mutated(before)

    assert outcome.pod["spec"]["containers"][0]["env"] == [harmless, devices("main")]
    assert [warning.split()[3] for warning in outcome.warnings] == [*names, names[0]]


@pytest.mark.parametrize(
    ("tolerations", "added"),
    [
        (None, True),
        ([], True),
        ([{"operator": "Exists"}], False),
        ([{"operator": "Exists", "effect": "NoExecute"}], True),
        ([{"key": "nvidia.com/gpu", "operator": "Exists"}], False),
        ([{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}], False),
        ([{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}], True),
        ([{"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}], True),
        ([{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}], True),
        ([{"key": "other", "operator": "Exists"}], True),
    ],
)
def test_the_taint_is_tolerated_once(tolerations: list[Any] | None, added: bool) -> None:
    before = pod() if tolerations is None else pod(tolerations=tolerations)
    ours = [TOLERATION] if added else []

    assert mutated(before).pod["spec"]["tolerations"] == [*(tolerations or []), *ours]


@pytest.mark.parametrize(
    ("present", "classes", "expected"),
    [
        (None, CLASSES, "nvidia"),
        ("", CLASSES, "nvidia"),
        (None, {}, None),
        ("gvisor", CLASSES, "gvisor"),
    ],
)
def test_the_runtime_class_is_set_only_where_it_exists_and_none_is_set(
    present: str | None, classes: dict[str, str], expected: str | None
) -> None:
    before = pod() if present is None else pod(runtimeClassName=present)

    assert mutated(before, classes).pod["spec"].get("runtimeClassName") == expected


@pytest.mark.parametrize(
    ("present", "kept"),
    [
        ("gpudetour-devices-" + "z9" * 10, True),
        ("gpudetour-devices-" + "z" * 19, False),
        ("gpudetour-devices-" + "Z" * 20, False),
        ("somebody-elses-config-map", False),
        ("gpudetour-devices-" + "z" * 20 + "\n", False),
        ("", False),
    ],
)
def test_only_a_generated_name_is_kept(present: str, kept: bool) -> None:
    before = pod()
    before["metadata"]["annotations"] = {"gpudetour.io/devices-from": present}
    name = present if kept else MARKED

    after = mutated(before).pod

    assert after["metadata"]["annotations"] == {"gpudetour.io/devices-from": name}
    assert after["spec"]["containers"][0]["env"] == [devices("main", name)]


def test_a_forged_assignment_is_removed_with_a_warning() -> None:
    before = pod()
    before["metadata"]["annotations"] = {"gpudetour.io/assigned": '{"v":1}', "team": "y"}

    outcome = mutated(before)

    assert "gpudetour.io/assigned" not in outcome.pod["metadata"]["annotations"]
    assert outcome.pod["metadata"]["annotations"]["team"] == "y"
    assert len(outcome.warnings) == 1


def test_another_node_label_can_be_chosen() -> None:
    outcome = mutator(selector="accelerator").mutate(pod())

    assert getattr(outcome, "pod", {})["spec"]["nodeSelector"] == {"accelerator": "true"}

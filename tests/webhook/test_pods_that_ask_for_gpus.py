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
            {"name": "main", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}},
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
                "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}},
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
        "DOCKER_RESOURCE_GPU",
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


@pytest.mark.parametrize(
    "key",
    [
        "gpudetour.io/assigned",
        "cdi.k8s.io/nvidia",
        "cdi.k8s.io/",
        "nvidia.cdi.k8s.io/container.main",
    ],
)
def test_annotations_that_promise_devices_are_removed_with_a_warning(key: str) -> None:
    before = pod()
    before["metadata"]["annotations"] = {
        key: '{"v":1}',
        "team": "y",
        "cdi.k8s.io": "no domain",
        "notcdi.k8s.io/x": "z",
    }

    outcome = mutated(before)

    assert outcome.pod["metadata"]["annotations"] == {
        "team": "y",
        "cdi.k8s.io": "no domain",
        "notcdi.k8s.io/x": "z",
        "gpudetour.io/devices-from": MARKED,
    }
    (warning,) = outcome.warnings
    assert warning.startswith(f"annotation {key} was removed")


def test_a_copy_of_a_placed_pod_gets_a_name_of_its_own_and_no_warning_of_our_entries() -> None:
    first = mutated(pod()).pod
    copied = copy.deepcopy(first)
    old = "gpudetour-devices-" + "b" * 20
    copied["metadata"]["annotations"] = {
        "gpudetour.io/devices-from": old,
        "gpudetour.io/assigned": "{}",
    }
    copied["spec"]["containers"][0]["env"] = [devices("main", old)]

    outcome = mutated(copied)

    assert outcome.pod == first
    assert [warning.split()[1] for warning in outcome.warnings] == ["gpudetour.io/assigned"]


def test_what_is_overwritten_in_the_metadata_is_told() -> None:
    before = pod()
    before["metadata"]["labels"] = {"gpudetour.io/gpu": "no"}
    before["metadata"]["annotations"] = {"gpudetour.io/devices-from": "mine"}

    assert [" ".join(warning.split()[:2]) for warning in mutated(before).warnings] == [
        "label gpudetour.io/gpu",
        "annotation gpudetour.io/devices-from",
    ]


def test_what_comes_from_other_sources_is_left_but_overruled_by_our_entry() -> None:
    sources = [{"configMapRef": {"name": "settings"}}, {"prefix": "NVIDIA_", "secretRef": {}}]
    before = pod(
        containers=[
            {"name": "main", "resources": GPU, "envFrom": sources},
            {"name": "proxy", "envFrom": sources},
        ]
    )

    main, proxy = mutated(before).pod["spec"]["containers"]

    assert (main["envFrom"], main["env"]) == (sources, [devices("main")])
    assert (proxy["envFrom"], proxy["env"]) == (sources, [VOID])


@pytest.mark.parametrize("architecture", ["arm64", "amd64", None])
def test_the_architecture_is_the_users_choice(architecture: str | None) -> None:
    chosen = {"kubernetes.io/arch": architecture} if architecture else {}
    before = pod(nodeSelector=chosen, os={"name": "linux"})

    spec = mutated(before).pod["spec"]

    assert spec["nodeSelector"] == {**chosen, "gpudetour.io/gpu": "true"}
    assert spec["tolerations"] == [TOLERATION]
    assert "affinity" not in spec


def test_a_static_pods_image_in_the_api_is_left_alone() -> None:
    before = pod(nodeName="n1")
    before["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}

    outcome = mutated(before)

    assert outcome.pod is before
    assert outcome.warnings == ()


def test_another_node_label_can_be_chosen() -> None:
    outcome = mutator(selector="accelerator").mutate(pod())

    assert getattr(outcome, "pod", {})["spec"]["nodeSelector"] == {"accelerator": "true"}

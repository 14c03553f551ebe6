"""Whatever is wrong with a pod, and however much of it: each fault is told, once, and no other."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.webhook.mutating import mutator
from tests.webhook.reviews import GPU, Raw, pod
from webhook.mutate import Mutated, Refused

Spoil = Callable[[Raw], None]


def annotated(key: str, value: str) -> Spoil:
    return lambda obj: obj["metadata"]["annotations"].update({f"gpudetour.io/{key}": value})


def specified(**fields: Any) -> Spoil:
    return lambda obj: obj["spec"].update(copy.deepcopy(fields))


def selecting(key: str, value: str) -> Spoil:
    return lambda obj: obj["spec"]["nodeSelector"].update({key: value})


def containing(name: str, **fields: Any) -> Spoil:
    return lambda obj: obj["spec"]["containers"].append({"name": name, **copy.deepcopy(fields)})


def asking(name: str, **resources: Any) -> Spoil:
    return containing(name, resources=resources)


SHUNNING = {
    "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "gpudetour.io/gpu", "operator": "DoesNotExist"}]}
        ]
    }
}
MOUNT = {"name": "v", "mountPath": "/var/run/nvidia-container-devices/all"}
MISTAKE = {"gpudetour.io/policy": "spread"}

#: What is done to a pod, by a part of the only fault that must be told of it.
SPOILT: Mapping[str, Spoil] = {
    "spec.nodeName is 'n1'": specified(nodeName="n1"),
    "spec.nodeSelector has gpudetour.io/gpu: 'no'": selecting("gpudetour.io/gpu", "no"),
    "spec.affinity.nodeAffinity requires": specified(affinity={"nodeAffinity": SHUNNING}),
    "the pod is for Windows": selecting("kubernetes.io/os", "windows"),
    "spec.resources has nvidia.com/gpu": specified(resources=GPU),
    "spec.ephemeralContainers cannot be set": specified(ephemeralContainers=[{"name": "e"}]),
    "label gpudetour.io/policy is not read": lambda obj: obj["metadata"].update(labels=MISTAKE),
    "annotation gpudetour.io/min-memory: that is 40": annotated("min-memory", "40"),
    "annotation gpudetour.io/topology: 'ring'": annotated("topology", "ring"),
    "annotation gpudetour.io/uid is not known; write gpudetour.io/uuid": annotated("uid", "x"),
    "container 'half', nvidia.com/gpu: '500m'": asking("half", limits={"nvidia.com/gpu": "500m"}),
    "container 'only', nvidia.com/gpu: it is under requests only": asking(
        "only", requests={"nvidia.com/gpu": 1}
    ),
    "container 'odd', nvidia.com/mig-1g.5gb: requests 1 and limits 2 differ": asking(
        "odd", requests={"nvidia.com/mig-1g.5gb": 1}, limits={"nvidia.com/mig-1g.5gb": 2}
    ),
    "container 'what', gpudetour.io/gpus: no node has it": asking(
        "what", limits={"gpudetour.io/gpus": 1}
    ),
    "container 'sly' mounts a volume": containing("sly", volumeMounts=[MOUNT]),
}


def spoilt(told: list[str]) -> Raw:
    obj = pod(nodeSelector={})
    obj["metadata"]["annotations"] = {}
    for part in told:
        SPOILT[part](obj)
    return obj


@given(st.lists(st.sampled_from(sorted(SPOILT)), min_size=1, unique=True))
@settings(max_examples=300, deadline=None)
def test_every_fault_is_told_once_beside_all_others(told: list[str]) -> None:
    outcome = mutator().mutate(spoilt(told))

    assert isinstance(outcome, Refused)
    assert sorted(told) == sorted(
        part for fault in outcome.faults for part in SPOILT if fault.startswith(part)
    )
    assert len(outcome.faults) == len(told)
    assert all(len(fault) <= 512 for fault in outcome.faults)


def test_without_any_of_them_the_pod_is_served() -> None:
    assert isinstance(mutator().mutate(spoilt([])), Mutated)


foreign_env = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["NVIDIA_VISIBLE_DEVICES", "A", "DOCKER_RESOURCE_X"])},
        optional={"value": st.sampled_from(["all", "void", ""])},
    ),
    max_size=3,
)


@given(foreign_env, foreign_env, st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_what_other_webhooks_add_between_two_calls_is_closed_by_the_second(
    added: list[Raw], put_first: list[Raw], asks: bool, undone: bool
) -> None:
    first = mutator().mutate(pod())
    assert isinstance(first, Mutated)
    between = msgspec.json.decode(msgspec.json.encode(first.pod))
    main = between["spec"]["containers"][0]
    main["env"] = [*put_first, *([] if undone else main["env"]), *added]
    sidecar = {"name": "mesh", "env": added, "resources": GPU if asks else {}}
    between["spec"]["containers"].insert(0, sidecar)

    second = mutator().mutate(between)

    assert isinstance(second, Mutated)
    entries = {
        container["name"]: [one for one in container["env"] if one["name"] != "A"]
        for container in second.pod["spec"]["containers"]
    }
    (was,) = first.pod["spec"]["containers"]
    assert entries["main"] == was["env"]
    assert ["valueFrom" in one for one in entries["mesh"]] == [asks]
    assert second.pod["metadata"] == first.pod["metadata"]
    void = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    told = [one for one in (*put_first, *added) if one["name"] != "A"]
    told += [one for one in added if one["name"] != "A" and (asks or one != void)]
    assert len(second.warnings) == len(told)

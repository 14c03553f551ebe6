"""What holds for any pod: mutating twice is mutating once, and the patch says exactly it."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from typing import Any

import jsonpatch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.webhook.mutating import mutator
from tests.webhook.reviews import UID, Raw
from webhook import review
from webhook.mutate import Mutated, Refused

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
keys = st.sampled_from(["a/b", "a~b", "a~1b", "", "gpudetour.io/assigned", "é"])
labels = keys | st.just("gpudetour.io/gpu")
texts = st.sampled_from(["", "true", "x", "gpudetour-devices-" + "b" * 20])
wishes = st.fixed_dictionaries(
    {},
    optional={
        "gpudetour.io/product": st.sampled_from(["*", "*H100*, NVIDIA L4", "é?[x]"]),
        "gpudetour.io/exclude-uuid": st.sampled_from(["GPU-a", "GPU-a,MIG-b,GPU-a"]),
        "gpudetour.io/min-memory": st.sampled_from(["1Gi", "3500M"]),
        "gpudetour.io/min-compute": st.sampled_from(["8", "12.1"]),
        "gpudetour.io/policy": st.sampled_from(["binpack", "spread"]),
    },
)
annotated = st.tuples(st.dictionaries(keys, texts), wishes).map(lambda both: both[0] | both[1])
names = st.sampled_from(["a", "b", "c"])
env = st.fixed_dictionaries(
    {"name": st.sampled_from(["NVIDIA_VISIBLE_DEVICES", "NVIDIA_IMEX_CHANNELS", "PATH", ""])},
    optional={"value": texts, "valueFrom": json_values},
)
whole = st.dictionaries(
    st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "cpu"]),
    st.sampled_from(["0", "1", 2, "1"]),
)
shares = st.dictionaries(
    st.sampled_from(["gpudetour.io/gpu-memory", "cpu"]), st.sampled_from(["0", "8Gi", 2**30])
)


def containers_asking(amounts: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    asked = st.fixed_dictionaries({}, optional={"limits": amounts, "requests": amounts})
    return st.fixed_dictionaries(
        {"name": names},
        optional={
            "env": st.none() | st.lists(env, max_size=4),
            "resources": asked,
            "restartPolicy": st.just("Always"),
            "extra": json_values,
        },
    )


tolerations = st.fixed_dictionaries(
    {},
    optional={
        "key": st.sampled_from(["nvidia.com/gpu", "x"]),
        "operator": st.sampled_from(["Exists", "Equal"]),
        "effect": st.sampled_from(["NoSchedule", "NoExecute", ""]),
        "value": texts,
    },
)


def pods_of(containers: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    made: st.SearchStrategy[Raw] = st.fixed_dictionaries(
        {
            "spec": st.fixed_dictionaries(
                {"containers": st.lists(containers, max_size=4)},
                optional={
                    "initContainers": st.none() | st.lists(containers, max_size=3),
                    "nodeSelector": st.none()
                    | st.dictionaries(labels, st.just("true"), max_size=2),
                    "tolerations": st.none() | st.lists(tolerations, max_size=3),
                    "runtimeClassName": st.none() | st.sampled_from(["", "nvidia", "gvisor"]),
                    "volumes": json_values,
                },
            )
        },
        optional={
            "metadata": st.fixed_dictionaries(
                {},
                optional={
                    "labels": st.none() | st.dictionaries(labels, texts),
                    "annotations": st.none() | annotated,
                    "name": names,
                },
            ),
            "extra": json_values,
        },
    )
    return made


pods = pods_of(containers_asking(whole)) | pods_of(containers_asking(shares))


def patch_of(before: Raw, after: Raw) -> Any:
    asked = review.Request(
        uid=UID,
        kind="v1/Pod",
        operation="CREATE",
        subresource="",
        namespace="default",
        name="",
        dry_run=False,
        object=before,
    )
    response = json.loads(review.allow(asked, after))["response"]
    return json.loads(base64.b64decode(response.get("patch", "W10=")))


@given(pods)
@settings(max_examples=400, deadline=None)
def test_mutating_twice_is_mutating_once_and_the_patch_says_it(before: Raw) -> None:
    untouched = copy.deepcopy(before)
    first = mutator().mutate(before)

    assert before == untouched
    assert isinstance(first, Mutated)
    assert json.dumps(
        jsonpatch.apply_patch(before, patch_of(before, first.pod)), sort_keys=True
    ) == (json.dumps(first.pod, sort_keys=True))
    second = mutator().mutate(first.pod)
    assert isinstance(second, Mutated)
    assert second.pod == first.pod
    assert patch_of(first.pod, second.pod) == []
    assert second.warnings == ()


@given(pods)
@settings(max_examples=200, deadline=None)
def test_every_container_ends_with_one_word_on_devices_or_none(before: Raw) -> None:
    outcome = mutator().mutate(before)

    assert isinstance(outcome, Mutated)
    if outcome.pod is before:
        return
    spec = outcome.pod["spec"]
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        said = [e["name"] for e in container["env"] if e["name"].startswith("NVIDIA_")]
        assert said == ["NVIDIA_VISIBLE_DEVICES"]
        assert container["env"][-1]["name"] == "NVIDIA_VISIBLE_DEVICES"


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "status"]), json_values))
@settings(max_examples=300, deadline=None)
def test_any_object_is_mutated_or_refused(before: Raw) -> None:
    assert isinstance(mutator().mutate(before), Mutated | Refused)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(review.BadReview):
        assert review.decode(body).uid

"""What holds for any pod: mutating twice is mutating once, and the patch says exactly it."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonpatch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.webhook.mutating import mutator
from tests.webhook.reviews import UID, Raw
from webhook import review
from webhook.mutate import Mutated, Refused
from webhook.patch import operations

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
keys = st.sampled_from(
    ["a/b", "a~b", "a~1b", "", "gpudetour.io/assigned", "é", "cdi.k8s.io/x", "nvidia.cdi.k8s.io/y"]
)
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
    {
        "name": st.sampled_from(
            ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_IMEX_CHANNELS", "DOCKER_RESOURCE_GPU", "PATH", ""]
        )
    },
    optional={"value": texts, "valueFrom": json_values},
)
whole = st.dictionaries(
    st.sampled_from(["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "cpu"]),
    st.sampled_from(["0", "1", 2, "1"]),
)
shares = st.dictionaries(
    st.sampled_from(["gpudetour.io/gpu-memory", "cpu"]), st.sampled_from(["0", "8Gi", 2**30])
)


mounts = st.fixed_dictionaries(
    {"name": names}, optional={"mountPath": st.sampled_from(["/dev", "/var/run", "x", ""])}
)


def containers_asking(amounts: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    # As the API server sends them: it fills requests from limits, and refuses what differs.
    both: st.SearchStrategy[Raw] = amounts.map(
        lambda named: {"limits": named, "requests": dict(named)}
    )
    limits: st.SearchStrategy[Raw] = amounts.map(lambda named: {"limits": named})
    asked: st.SearchStrategy[Raw] = both | limits | st.just({})
    return st.fixed_dictionaries(
        {"name": names},
        optional={
            "env": st.none() | st.lists(env, max_size=4),
            "resources": asked,
            "envFrom": json_values,
            "volumeMounts": st.none() | st.lists(mounts, max_size=2),
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
                    "os": st.sampled_from([{"name": "linux"}, {"name": ""}, {}]),
                    "affinity": st.sampled_from([{}, {"podAffinity": {"x": 1}}]),
                    "volumes": json_values,
                    "extra": json_values,
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
                    "extra": json_values,
                },
            ),
            "extra": json_values,
        },
    )
    return made


pods = pods_of(containers_asking(whole)) | pods_of(containers_asking(shares))


def patch_of(before: Raw, after: Raw) -> Any:
    response = json.loads(review.allow(asked(before), after))["response"]
    return json.loads(base64.b64decode(response.get("patch", "W10=")))


def asked(obj: Raw) -> review.Request:
    return review.Request(
        uid=UID,
        kind="v1/Pod",
        operation="CREATE",
        subresource="",
        namespace="default",
        name="",
        dry_run=False,
        object=obj,
        old_object=None,
    )


def text(value: Any) -> str:
    """What JSON makes of a value; unlike Python, it knows 1 from 1.0 and true."""
    return json.dumps(value, sort_keys=True)


def said_of_devices(container: Raw) -> Iterator[str]:
    for one in container.get("env") or ():
        if one["name"].startswith(("NVIDIA_", "DOCKER_RESOURCE_")):
            yield one["name"]


def all_containers(pod: Raw) -> list[Raw]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def untouched(pod: Raw) -> Raw:
    """A pod without everything that a mutation may change."""
    rest = copy.deepcopy(pod)
    if metadata := rest.get("metadata"):
        for field in ("labels", "annotations"):
            metadata.pop(field, None)
    for field in ("nodeSelector", "tolerations", "runtimeClassName"):
        rest["spec"].pop(field, None)
    for container in all_containers(rest):
        container.pop("env", None)
    return {"metadata": {}, **rest}


ways = st.sampled_from(["mutate", "close"])


def outcome_of(way: str, pod: Raw) -> Mutated:
    outcome = getattr(mutator(), way)(pod)
    assert isinstance(outcome, Mutated), outcome
    return outcome


@given(pods, ways)
@settings(max_examples=300, deadline=None)
def test_mutating_twice_is_mutating_once_and_the_patch_says_it(before: Raw, way: str) -> None:
    original = copy.deepcopy(before)
    first = outcome_of(way, before)

    assert before == original
    assert text(jsonpatch.apply_patch(before, patch_of(before, first.pod))) == text(first.pod)
    second = outcome_of(way, first.pod)
    assert second.pod == first.pod
    assert patch_of(first.pod, second.pod) == []
    assert second.warnings == ()


@given(pods, ways)
@settings(max_examples=300, deadline=None)
def test_what_need_not_be_changed_stays_as_it_was(before: Raw, way: str) -> None:
    after = outcome_of(way, before).pod

    assert text(untouched(before)) == text(untouched(after))
    for was, now in zip(all_containers(before), all_containers(after), strict=True):
        kept = [one for one in was.get("env") or () if one["name"] in ("PATH", "")]
        assert text(kept) == text([e for e in now.get("env") or () if e["name"] in ("PATH", "")])
    removed = {
        operation["path"] for operation in patch_of(before, after) if operation["op"] == "remove"
    }
    assert all(path.startswith(("/metadata/annotations/", "/spec/")) for path in removed)


@given(pods, ways)
@settings(max_examples=300, deadline=None)
def test_every_container_ends_with_one_word_on_devices_or_nothing_is_changed(
    before: Raw, way: str
) -> None:
    after = outcome_of(way, before).pod

    if after == before:
        return
    for container in all_containers(after):
        assert list(said_of_devices(container)) == ["NVIDIA_VISIBLE_DEVICES"]
        assert container["env"][-1]["name"] == "NVIDIA_VISIBLE_DEVICES"


@given(pods, st.lists(containers_asking(st.just({})), max_size=4), st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_debug_containers_are_closed_and_nothing_else_is_changed(
    before: Raw, ephemeral: list[Raw], number: int
) -> None:
    named = [{**one, "name": f"debug-{index}"} for index, one in enumerate(ephemeral)]
    old, new = named[:number], named[number:]
    running = {**before, "spec": {**before["spec"], "ephemeralContainers": old}}
    # The API server puts new ones first where they come by a strategic merge patch.
    debugged = {**before, "spec": {**before["spec"], "ephemeralContainers": [*new, *old]}}

    outcome = mutator().debug(debugged, running, any_runtime=True)

    assert isinstance(outcome, Mutated), outcome
    patch = patch_of(debugged, outcome.pod)
    assert text(jsonpatch.apply_patch(debugged, patch)) == text(outcome.pod)
    fresh = tuple(f"/spec/ephemeralContainers/{index}/env" for index in range(len(new)))
    assert all(operation["path"].startswith(fresh) for operation in patch)
    if before["spec"].get("runtimeClassName") != "gvisor":
        found = outcome.pod["spec"]["ephemeralContainers"][: len(new)]
        assert [list(said_of_devices(one)) for one in found] == [["NVIDIA_VISIBLE_DEVICES"]] * len(
            new
        )
        assert all(one["env"][-1]["value"] == "void" for one in found)
    again = mutator().debug(outcome.pod, running, any_runtime=True)
    assert isinstance(again, Mutated)
    assert patch_of(outcome.pod, again.pod) == []
    assert again.warnings == ()


pieces = st.dictionaries(st.sampled_from(["spec", "metadata", "status"]), json_values)


@given(pieces, pieces)
@settings(max_examples=300, deadline=None)
def test_any_object_is_mutated_or_refused(before: Raw, older: Raw) -> None:
    for outcome in (
        mutator().mutate(before),
        mutator().close(before),
        mutator().debug(before, older, any_runtime=True),
    ):
        assert isinstance(outcome, Mutated | Refused)


@given(json_values, json_values)
@settings(max_examples=300, deadline=None)
def test_a_patch_leads_from_any_value_to_any_other(before: Any, after: Any) -> None:
    wrapped, wanted = {"it": before}, {"it": after}
    patch = operations(wrapped, wanted)

    assert text(jsonpatch.apply_patch(wrapped, patch)) == text(wanted)
    assert operations(wanted, {"it": after}) == []


entries = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"value": texts, "at": json_values})
    | st.integers(0, 2)
    | st.booleans(),
    max_size=6,
) | st.lists(st.fixed_dictionaries({"name": names, "value": texts}), min_size=30, max_size=50)


members = st.dictionaries(st.integers(0, 60).map(str), st.booleans(), max_size=60)


@given(entries, entries, members, members)
@settings(max_examples=300, deadline=None)
def test_a_patch_leads_from_any_list_or_map_to_any_other(
    old_entries: list[Any], new_entries: list[Any], old: Raw, new: Raw
) -> None:
    before, after = {"list": old_entries, "map": old}, {"list": new_entries, "map": new}
    patch = operations(before, after)

    assert text(jsonpatch.apply_patch(before, patch)) == text(after)
    assert sum(operation["op"] == "remove" for operation in patch) <= 2 * 32


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300, deadline=None)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(review.BadReview):
        assert review.decode(body).uid

"""What can be read and yet never be granted is refused, with what to write instead."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.annotations import PREFIX, WISHES
from gpus.demand import Demand, DemandError, demand_of
from gpus.misspelt import misspelt_annotations, misspelt_resources
from kube.objects import Pod

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-1g.5gb"
SHARED = "nvidia.com/gpu.shared"
SHARE = "gpudetour.io/gpu-memory"


def pod_asking(*containers: dict[str, Any], node: str = "", **wishes: str) -> Pod:
    """A pod of containers with these limits; `min_memory=…` is gpudetour.io/min-memory."""
    annotations = {PREFIX + key.replace("_", "-"): text for key, text in wishes.items()}
    document = {
        "metadata": {"annotations": annotations},
        "spec": {
            "nodeName": node,
            "containers": [
                {"name": f"c{number}", "resources": {"limits": limits}}
                for number, limits in enumerate(containers)
            ],
        },
    }
    return msgspec.convert(document, Pod)


def faults(pod: Pod) -> tuple[str, ...]:
    try:
        demand_of(pod)
    except DemandError as error:
        return error.faults
    return ()


@pytest.mark.parametrize(
    ("asked", "wishes", "told"),
    [
        ({GPU: 1, SHARE: "8Gi"}, {}, "make two pods"),
        ({MIG: 1, SHARE: "8Gi"}, {}, "make two pods"),
        ({SHARED: 1, SHARE: "8Gi"}, {}, "make two pods"),
        ({GPU: "one", SHARE: "8Gi"}, {}, "make two pods"),
        ({GPU: 1}, {"uuid": "GPU-a", "exclude_uuid": "GPU-b,GPU-a"}, "remove a UUID from one"),
        ({GPU: 2}, {"uuid": "GPU-a"}, "name more, or ask for fewer"),
        ({GPU: 2}, {"uuid": "GPU-a,GPU-a"}, "name more, or ask for fewer"),
        ({GPU: 2}, {"uuid": "GPU-a,GPU-b", "exclude_uuid": "GPU-b"}, "name more, or ask for fewer"),
        ({GPU: 2}, {"uuid": "GPU-a,MIG-b"}, "name more, or ask for fewer"),
        ({GPU: 1}, {"uuid": "MIG-a"}, "name GPU-…"),
        ({SHARE: "8Gi"}, {"uuid": "MIG-a"}, "name GPU-…"),
        ({MIG: 2}, {"uuid": "MIG-a"}, "name more, or ask for fewer"),
        ({MIG: 1}, {"topology": "nvlink"}, "remove the annotation"),
        ({MIG: 2}, {"topology": "numa"}, "remove the annotation"),
        ({SHARED: 2}, {"topology": "numa"}, "remove the annotation"),
        ({MIG: 1}, {"min_memory": "10Gi"}, "ask for a larger profile"),
        ({"nvidia.com/mig-1g.10gb.me": 1}, {"min_memory": "12Gi"}, "ask for a larger profile"),
    ],
)
def test_a_contradiction_is_one_fault_that_says_what_to_write(
    asked: dict[str, Any], wishes: dict[str, str], told: str
) -> None:
    found = faults(pod_asking(asked, **wishes))

    assert [told in fault for fault in found].count(True) == 1
    assert len(found) == (2 if asked.get(GPU) == "one" else 1)


@pytest.mark.parametrize(
    ("asked", "wishes"),
    [
        ({GPU: 1}, {"topology": "nvlink"}),
        ({SHARE: "8Gi"}, {"topology": "nvlink"}),
        ({SHARE: "8Gi"}, {"min_memory": "80Gi", "uuid": "GPU-a,MIG-b", "policy": "spread"}),
        ({GPU: 1}, {"uuid": "GPU-a,GPU-b", "exclude_uuid": "GPU-b"}),
        ({GPU: 2}, {"uuid": "GPU-a,GPU-b", "exclude_uuid": "GPU-c"}),
        ({MIG: 7}, {"uuid": "GPU-a"}),
        ({MIG: 2}, {"uuid": "MIG-a,GPU-b"}),
        ({MIG: 1}, {"min_memory": "5Gi"}),
        ({"nvidia.com/mig-odd": 1}, {"min_memory": "500Gi"}),
        ({GPU: 1, MIG: 1}, {}),
        ({SHARED: 4}, {"uuid": "GPU-a"}),
    ],
)
def test_what_some_node_might_grant_is_no_contradiction(
    asked: dict[str, Any], wishes: dict[str, str]
) -> None:
    assert faults(pod_asking(asked, **wishes)) == ()


def test_shares_and_gpus_contradict_each_other_in_different_containers_too() -> None:
    (fault,) = faults(pod_asking({GPU: 1}, {SHARE: "8Gi"}))

    assert GPU in fault
    assert SHARE in fault


def test_the_containers_of_a_pod_share_one_gpu_and_cannot_ask_for_more_than_one_has() -> None:
    assert faults(pod_asking({SHARE: "512Gi"}, {SHARE: "512Gi"})) == ()

    (fault,) = faults(pod_asking({SHARE: "600Gi"}, {SHARE: "600Gi"}))

    assert "all containers of a pod share one GPU" in fault
    assert "make several pods" in fault


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        ("8", "such as 8Gi"),
        (8, "such as 8Gi"),
        ("8192", "such as 8192Mi"),
        ("1025Gi", "at most 1Ti"),
        ("-8Gi", "such as 8Gi"),
        ("0.5", "such as 8Gi"),
        ("8 GB", "such as 8Gi"),
        ("", "such as 8Gi"),
        (10**30, "such as 8Gi"),
    ],
)
def test_a_share_that_no_gpu_has_is_refused_with_what_to_write(amount: Any, told: str) -> None:
    (fault,) = faults(pod_asking({SHARE: amount}))

    assert fault.startswith(f"container 'c0', {SHARE}: ")
    assert told in fault


def test_what_is_wrong_with_a_pod_is_told_all_at_once() -> None:
    found = faults(
        pod_asking(
            {GPU: "1.5", MIG: 1},
            {SHARE: "8"},
            uuid="GPU-a",
            exclude_uuid="GPU-a",
            min_memory="40",
            min_compute="eight",
            topology="numa",
            policy="tight",
        )
    )

    assert len(found) == 8


def test_a_share_is_counted_in_bytes_and_wishes_come_with_it() -> None:
    demand = demand_of(pod_asking({SHARE: "8Gi"}, {SHARE: "512Mi"}, policy="spread"))

    assert isinstance(demand, Demand)
    assert demand.totals == {SHARE: (8 << 30) + (512 << 20)}
    assert [dict(container.counts) for container in demand.containers] == [
        {SHARE: 8 << 30},
        {SHARE: 512 << 20},
    ]
    assert demand.wishes.policy == "spread"


def test_wishes_without_a_request_are_none_of_our_business() -> None:
    assert demand_of(pod_asking({}, uuid="0", topology="ring")) is None
    assert demand_of(pod_asking({GPU: 0, SHARE: 0}, uuid="0")) is None


def test_an_annotation_on_a_bound_pod_cannot_make_what_it_holds_unknown() -> None:
    demand = demand_of(pod_asking({GPU: 2}, node="n1", uuid="0", topology="ring", min_memory="1"))
    mixed = demand_of(pod_asking({GPU: 2, SHARE: "8Gi"}, node="n1"))

    assert demand is not None
    assert demand.totals == {GPU: 2}
    assert not demand.wishes.narrows
    assert mixed is not None
    assert mixed.totals == {GPU: 2, SHARE: 8 << 30}


quantities = st.text(max_size=12) | st.integers() | st.floats() | st.sampled_from(["1", "8Gi", "0"])
limits = st.dictionaries(st.sampled_from([GPU, MIG, SHARED, SHARE, "cpu", MIG + "é"]), quantities)
wishes_written = st.dictionaries(
    st.sampled_from([key.removeprefix(PREFIX).replace("-", "_") for key in WISHES]),
    st.text(max_size=20) | st.sampled_from(["GPU-a", "GPU-a,GPU-b", "MIG-a", "40Gi", "nvlink"]),
)


@given(st.lists(limits, max_size=4), wishes_written, st.sampled_from(["", "n1"]))
def test_any_pod_is_understood_or_refused(
    asked: list[dict[str, Any]], wishes: dict[str, str], node: str
) -> None:
    pod = pod_asking(*asked, node=node, **wishes)
    found = faults(pod)

    assert len(set(found)) == len(found)
    assert all(0 < len(fault) < 500 for fault in found)
    demand = None if found else demand_of(pod)
    assert demand is None or all(demand.totals.values())
    assert all([*misspelt_annotations(pod), *misspelt_resources(pod)])


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("products", "write gpudetour.io/product,"),
        ("gpu-product", "write gpudetour.io/product,"),
        ("min_memory", "write gpudetour.io/min-memory,"),
        ("excluded-uuid", "write gpudetour.io/exclude-uuid,"),
        ("gpu", "one of gpudetour.io/product, gpudetour.io/uuid"),
        ("", "one of gpudetour.io/product, gpudetour.io/uuid"),
    ],
)
def test_an_annotation_of_ours_that_means_nothing_is_told_with_the_nearest(
    key: str, instead: str
) -> None:
    annotations = {PREFIX + key: "x", "example.com/products": "x", **dict.fromkeys(WISHES, "x")}
    pod = msgspec.convert({"metadata": {"annotations": annotations}}, Pod)

    (fault,) = misspelt_annotations(pod)

    assert instead in fault


def test_a_resource_of_ours_that_no_node_has_is_told() -> None:
    pod = pod_asking({SHARE: "8Gi", GPU: 1}, {"gpudetour.io/memory": "8Gi", "cpu": 1})

    (fault,) = misspelt_resources(pod)

    assert fault == (
        "container 'c1', gpudetour.io/memory: no node has it; write gpudetour.io/gpu-memory"
    )

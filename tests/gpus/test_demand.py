"""What a pod asks for, against a simulation of the order in which kubelet runs its containers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.demand import MAX_COUNT, ContainerKind, DemandError, demand_of, is_gpu_resource
from kube.objects import Container, Pod, PodSpec, Quantity, Resources

RESOURCES = ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared"]

QUANTITIES: st.SearchStrategy[Quantity] = st.integers(0, 5) | st.integers(0, 5).map(str)
LIMITS = st.dictionaries(st.sampled_from([*RESOURCES, "cpu"]), QUANTITIES, max_size=3)


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    def container(name: str, *, init: bool) -> Container:
        return Container(
            name=name,
            resources=draw(st.none() | LIMITS.map(lambda limits: Resources(limits=limits))),
            restart_policy=draw(st.sampled_from([None, "Always"])) if init else None,
        )

    inits = [container(f"i{n}", init=True) for n in range(draw(st.integers(0, 5)))]
    apps = [container(f"a{n}", init=False) for n in range(draw(st.integers(1, 4)))]
    return Pod(spec=PodSpec(init_containers=inits or None, containers=apps))


def asked(container: Container, resource: str) -> int:
    limits = container.resources.limits if container.resources else None
    return int((limits or {}).get(resource, "0"))


def peak_by_running(pod: Pod, resource: str) -> int:
    """Start the containers as kubelet does and look how many devices are in use at each moment."""
    running: list[Container] = []
    peak = 0

    def look() -> None:
        nonlocal peak
        peak = max(peak, sum(asked(container, resource) for container in running))

    for container in pod.spec.init_containers or ():
        running.append(container)
        look()
        if container.restart_policy != "Always":
            running.remove(container)  # ran to its end before the next one starts
    running.extend(pod.spec.containers or ())
    look()
    return peak


@given(pods())
def test_the_totals_are_the_peak_of_what_runs_at_the_same_time(pod: Pod) -> None:
    peaks = {resource: peak_by_running(pod, resource) for resource in RESOURCES}
    expected = {resource: peak for resource, peak in peaks.items() if peak}

    demand = demand_of(pod)

    assert (dict(demand.totals) if demand else {}) == expected


@given(pods())
def test_only_containers_that_ask_for_something_are_listed_in_the_order_in_which_they_start(
    pod: Pod,
) -> None:
    everything = [*(pod.spec.init_containers or ()), *(pod.spec.containers or ())]
    expected = [c.name for c in everything if any(asked(c, r) for r in RESOURCES)]

    demand = demand_of(pod)

    assert ([c.name for c in demand.containers] if demand else []) == expected


def decode(**spec: Any) -> Pod:
    return msgspec.convert({"spec": spec}, Pod)


def wants(name: str = "main", resource: str = "nvidia.com/gpu", **kinds: Any) -> dict[str, Any]:
    return {"name": name, "resources": {kind: {resource: n} for kind, n in kinds.items()}}


@pytest.mark.parametrize("quantity", [0, "0", "0.0", "0m", "-0"])
def test_zero_is_no_demand(quantity: str | int) -> None:
    assert demand_of(decode(containers=[wants(limits=quantity)])) is None


@pytest.mark.parametrize(
    "spec",
    [{}, {"containers": None}, {"containers": [{"name": "a"}, {"name": "b", "resources": None}]}],
)
def test_a_pod_without_resources_asks_for_nothing(spec: dict[str, Any]) -> None:
    assert demand_of(msgspec.convert({"spec": spec}, Pod)) is None


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({"limits": "2"}, 2),
        ({"requests": "2"}, 2),
        ({"requests": "2", "limits": "2"}, 2),
        ({"requests": "1", "limits": "3"}, 3),
        ({"limits": 2}, 2),
        ({"limits": "1e1"}, 10),
        ({"limits": "1Ki"}, 1024),
        ({"limits": "2000m"}, 2),
    ],
)
def test_limits_speak_for_requests(resources: dict[str, Any], count: int) -> None:
    demand = demand_of(decode(containers=[wants(**resources)]))

    assert demand is not None
    assert demand.totals == {"nvidia.com/gpu": count}


@pytest.mark.parametrize("quantity", ["-1", -1, "1.5", "500m", "all", "", 10**18, "1E", "10E"])
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_what_cannot_be_granted_is_a_fault_that_names_the_container(
    quantity: str | int, place: str
) -> None:
    with pytest.raises(DemandError) as refused:
        demand_of(decode(**{place: [wants("train", limits=quantity)]}))

    (fault,) = refused.value.faults
    assert fault.startswith("container 'train', nvidia.com/gpu: ")


def test_every_fault_is_told_at_once() -> None:
    pod = decode(
        initContainers=[wants("fetch", limits="1.5")],
        containers=[
            wants("train", limits=MAX_COUNT + 1),
            wants("serve", resource="nvidia.com/mig-1g.5gb", limits="all"),
            wants("good", limits=1),
        ],
    )

    with pytest.raises(DemandError) as refused:
        demand_of(pod)

    named = [fault.split("'")[1] for fault in refused.value.faults]
    assert named == ["fetch", "train", "serve"]


def test_an_init_container_and_a_sidecar_are_told_apart() -> None:
    pod = decode(
        initContainers=[
            wants("init", limits=1),
            {**wants("sidecar", limits=1), "restartPolicy": "Always"},
        ],
        containers=[wants("app", limits=1)],
    )

    demand = demand_of(pod)

    assert demand is not None
    assert [container.kind for container in demand.containers] == [
        ContainerKind.INIT,
        ContainerKind.SIDECAR,
        ContainerKind.APP,
    ]
    assert demand.totals == {"nvidia.com/gpu": 2}


def test_two_resources_of_one_container_are_counted_apart() -> None:
    container = {
        "name": "both",
        "resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/mig-1g.5gb": "2"}},
    }

    demand = demand_of(decode(containers=[container]))

    assert demand is not None
    assert demand.totals == {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.5gb": 2}


@pytest.mark.parametrize(
    "name", ["cpu", "nvidia.com/gpux", "amd.com/gpu", "nvidia.com/", "requests.nvidia.com/gpu"]
)
def test_other_resources_are_none_of_ours(name: str) -> None:
    assert not is_gpu_resource(name)
    assert demand_of(decode(containers=[wants(resource=name, limits="nonsense")])) is None


def test_500_containers_are_counted() -> None:
    demand = demand_of(decode(containers=[wants(f"c{n}", limits=1) for n in range(500)]))

    assert demand is not None
    assert demand.totals == {"nvidia.com/gpu": 500}

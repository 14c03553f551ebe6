"""Who of a pod's containers gets which device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from extender.placement.assign import assign
from extender.placement.distribute import agrees, distribute
from extender.placement.reasons import Reason, Rejection
from gpus.demand import ContainerDemand, ContainerKind, Demand
from gpus.model import GPU_RESOURCE, DeviceId, ResourceName
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import facts, state

RESOURCES = (GPU_RESOURCE, ResourceName("nvidia.com/mig-1g.5gb"))

counts = st.dictionaries(st.sampled_from(RESOURCES), st.integers(1, 3), min_size=1)


@st.composite
def pods(draw: st.DrawFn) -> PodBuilder:
    builder = pod("p")
    for number in range(draw(st.integers(0, 4))):
        asked = {_key(name): count for name, count in draw(counts).items()}
        add = builder.sidecar if draw(st.booleans()) else builder.init
        builder = add(f"before-{number}", **_wants(asked))
    for number in range(draw(st.integers(1, 3))):
        asked = {_key(name): count for name, count in draw(counts).items()}
        builder = builder.wants(container=f"app-{number}", **_wants(asked))
    return builder


def _key(resource: ResourceName) -> str:
    return "gpus" if resource == GPU_RESOURCE else "mig_1g_5gb"


def _wants(asked: Mapping[str, int]) -> dict[str, int]:
    return dict(asked)


def _first(_resource: ResourceName, devices: Sequence[DeviceId], count: int) -> list[DeviceId]:
    return list(devices[:count])


def running_together(demand: Demand) -> list[list[ContainerDemand]]:
    """Who runs at the same time, moment by moment, as kubelet starts them."""
    moments, sidecars = [], []
    for container in demand.containers:
        if container.kind is ContainerKind.SIDECAR:
            sidecars.append(container)
            moments.append([*sidecars])
        elif container.kind is ContainerKind.INIT:
            moments.append([*sidecars, container])
    apps = [c for c in demand.containers if c.kind is ContainerKind.APP]
    return [*moments, [*sidecars, *apps]]


@given(pods())
def test_containers_that_run_together_share_no_device(builder: PodBuilder) -> None:
    demand = facts(builder).demand
    assert demand is not None
    pools = {
        name: [DeviceId(f"{name}-{i}") for i in range(count)]
        for name, count in demand.totals.items()
    }
    resource_of = {device: name for name, pool in pools.items() for device in pool}

    given_out = distribute(demand, pools, pick=_first)

    for container in demand.containers:
        found = [resource_of[device] for device in given_out[container.name]]
        assert {name: found.count(name) for name in set(found)} == dict(container.counts)
    for moment in running_together(demand):
        devices = [device for container in moment for device in given_out[container.name]]
        assert len(devices) == len(set(devices))
    assert agrees(given_out, demand, resource_of=resource_of)


@given(pods(), st.data())
def test_an_assignment_that_was_tampered_with_is_not_taken_up(
    builder: PodBuilder, data: st.DataObject
) -> None:
    demand = facts(builder).demand
    assert demand is not None
    pools = {
        name: [DeviceId(f"{name}-{i}") for i in range(count)]
        for name, count in demand.totals.items()
    }
    resource_of = {device: name for name, pool in pools.items() for device in pool}
    given_out = dict(distribute(demand, pools, pick=_first))
    victim = data.draw(st.sampled_from(sorted(given_out)))

    given_out[victim] = data.draw(
        st.sampled_from(
            [
                given_out[victim][1:],
                (*given_out[victim], DeviceId("foreign")),
                (*given_out[victim][1:], DeviceId("foreign")),
                (*given_out[victim], given_out[victim][0]),
            ]
        )
    )

    assert not agrees(given_out, demand, resource_of=resource_of)


def test_two_apps_on_one_device_do_not_agree() -> None:
    demand = facts(pod("p").wants(gpus=1).wants(container="b", gpus=1)).demand
    assert demand is not None
    one, two = DeviceId("GPU-0"), DeviceId("GPU-1")
    usable = {one: GPU_RESOURCE, two: GPU_RESOURCE}

    assert agrees({"main": (one,), "b": (two,)}, demand, resource_of=usable)
    assert not agrees({"main": (one,), "b": (one,)}, demand, resource_of=usable)
    assert not agrees({"main": (one,)}, demand, resource_of=usable)


def test_the_larger_container_gets_the_pair_that_nvlink_joins() -> None:
    pairs = node("n").with_gpus(4, nvlink_pairs=True).annotation_path()
    taken = pod("other").wants(gpus=1).assigned({"main": ["GPU-n-1"]})
    demand = facts(pod("p").wants(container="small", gpus=1).wants(gpus=2)).demand
    assert demand is not None

    given_out = assign(demand, state(pairs, taken), listed=True)

    assert given_out == {"small": ("GPU-n-0",), "main": ("GPU-n-2", "GPU-n-3")}


def test_a_single_gpu_is_taken_where_no_pair_is_broken() -> None:
    pairs = node("n").with_gpus(4, nvlink_pairs=True).annotation_path()
    taken = pod("other").wants(gpus=1).assigned({"main": ["GPU-n-2"]})
    demand = facts(pod("p").wants(gpus=1)).demand
    assert demand is not None

    assert assign(demand, state(pairs, taken), listed=True) == {"main": ("GPU-n-3",)}


def test_instances_come_from_the_card_that_is_cut_up_and_used_most() -> None:
    cut = node("n").with_mig(["1g.5gb"] * 3).with_mig(["1g.5gb"] * 3).annotation_path()
    taken = pod("other").wants(mig_1g_5gb=1).assigned({"main": ["MIG-n-1-1"]})
    demand = facts(pod("p").wants(mig_1g_5gb=2)).demand
    assert demand is not None

    given_out = assign(demand, state(cut, taken), listed=True)

    assert given_out == {"main": ("MIG-n-1-0", "MIG-n-1-2")}


def test_an_assignment_of_earlier_is_kept_while_it_can_be() -> None:
    four = node("n").with_gpus(4).annotation_path()
    demand = facts(pod("p").wants(gpus=1)).demand
    assert demand is not None
    earlier = {"main": (DeviceId("GPU-n-3"),)}
    taken = pod("other").wants(gpus=1).assigned({"main": ["GPU-n-3"]})

    assert assign(demand, state(four), listed=True, earlier=earlier) == earlier
    # The card that shares a NUMA node with the taken one: the other two stay together.
    other = assign(demand, state(four, taken), listed=True, earlier=earlier)
    assert other == {"main": ("GPU-n-2",)}


def test_on_the_plugin_path_kubelet_chooses() -> None:
    demand = facts(pod("p").wants(gpus=2)).demand
    assert demand is not None

    assert assign(demand, state(node("n").with_gpus(2).plugin_path()), listed=True) == {}
    assert assign(demand, state(node("n").with_gpus(1).plugin_path()), listed=True) == Rejection(
        (Reason.TOO_FEW,)
    )

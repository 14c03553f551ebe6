"""Shares of one GPU: packed up to its memory, one GPU after the other, never beside a holder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.placement.assign import assign
from extender.placement.fit import Fit, fits
from extender.placement.reasons import Reason, Rejection
from extender.placement.strategies import binpack
from gpus.model import Health, NodeName
from tests.builders import NodeBuilder, PodBuilder, node, pod
from tests.extender.ledgers import Told, ask, facts, open_devices, reasons, state

GIB = 1 << 30
TWO = node("n").with_gpus(2).cards(memory_bytes=24 * GIB)
ANNOTATION = TWO.annotation_path()
WHOLE = pod("whole").wants(gpus=1)


def share(name: str, size: int) -> PodBuilder:
    return pod(name).wants(memory=f"{size}Gi")


def has(name: str, size: int, card: int) -> PodBuilder:
    return share(name, size).assigned({"main": [f"GPU-n-{card}"]}, share=size * GIB)


def given_to(asked: PodBuilder, on: NodeBuilder, *pods: PodBuilder) -> object:
    demand = facts(asked).demand
    assert demand is not None
    outcome = assign(demand, state(on, *pods), listed=True)
    return outcome.main if isinstance(outcome, Rejection) else dict(outcome)


def test_shares_fill_a_started_gpu_and_then_the_next() -> None:
    one, two = has("a", 10, 1), has("b", 10, 1)

    assert given_to(share("p", 10), ANNOTATION, one) == {"main": ("GPU-n-1",)}
    assert given_to(share("p", 10), ANNOTATION, one, two) == {"main": ("GPU-n-0",)}
    assert given_to(share("p", 4), ANNOTATION, one, two) == {"main": ("GPU-n-1",)}


def test_the_fullest_started_gpu_that_has_room_is_taken() -> None:
    pods = has("a", 10, 0), has("b", 18, 1)

    assert given_to(share("p", 6), ANNOTATION, *pods) == {"main": ("GPU-n-1",)}
    assert given_to(share("p", 7), ANNOTATION, *pods) == {"main": ("GPU-n-0",)}


def test_a_share_starts_the_least_capable_gpu_that_is_large_enough() -> None:
    mixed = TWO.cards(1, memory_bytes=80 * GIB).annotation_path()

    assert given_to(share("p", 24), mixed) == {"main": ("GPU-n-0",)}
    assert given_to(share("p", 25), mixed) == {"main": ("GPU-n-1",)}


def test_a_gpu_is_held_in_shares_or_whole_never_both() -> None:
    started = state(ANNOTATION, has("a", 1, 0))

    assert open_devices(started) == ["GPU-n-1"]
    assert given_to(WHOLE.wants(gpus=2), ANNOTATION, has("a", 1, 0)) is Reason.NOT_ENOUGH
    whole = WHOLE.assigned({"main": ["GPU-n-0"]})
    assert given_to(share("p", 1), ANNOTATION, whole) == {"main": ("GPU-n-1",)}
    assert given_to(share("p", 1), ANNOTATION, whole, has("a", 24, 1)) is Reason.IN_USE
    # Were it written all the same, the GPU would be taken as a whole.
    assert given_to(share("p", 1), ANNOTATION, whole, has("a", 1, 0)) == {"main": ("GPU-n-1",)}
    assert open_devices(state(ANNOTATION, whole, has("a", 1, 0))) == ["GPU-n-1"]


@pytest.mark.parametrize(
    ("asked", "on", "pods", "expected"),
    [
        (share("p", 24), ANNOTATION, (), None),
        (share("p", 25), ANNOTATION, (), Reason.OTHER_KIND),
        (share("p", 24), ANNOTATION, (has("a", 1, 0), has("b", 1, 1)), Reason.NOT_ENOUGH),
        (share("p", 1), ANNOTATION, (has("a", 24, 0), has("b", 24, 1)), Reason.IN_USE),
        (share("p", 1), TWO.health(Health.LOST, 0, 1).annotation_path(), (), Reason.UNHEALTHY),
        (share("p", 1), TWO.health(Health.LOST, 0).annotation_path(), (), None),
        (share("p", 1), TWO.inventory().plugin_path(), (), Reason.OTHER_KIND),
        (share("p", 1), node("n").with_gpus(2).annotation_path(), (), Reason.OTHER_KIND),
        (share("p", 1), node("n").with_mig(["1g.5gb"]).annotation_path(), (), Reason.OTHER_KIND),
        (share("p", 1), node("n"), (), Reason.NO_GPU),
        (share("p", 1).wishing(product="*A100*"), ANNOTATION, (), Reason.OTHER_PRODUCT),
        (share("p", 1).wishing(uuid="GPU-n-1"), ANNOTATION, (has("a", 24, 1),), Reason.IN_USE),
        (share("p", 1).devices_from(None), ANNOTATION, (), Reason.POD_UNUSABLE),
        (share("p", 1), ANNOTATION.path("settling"), (), Reason.PATH_CHANGING),
        (share("p", 1), ANNOTATION, (WHOLE,), Reason.HOLDER_UNKNOWN),
        # A share that is written in another size than asked for, or as a whole GPU.
        (
            share("p", 1),
            ANNOTATION,
            (share("a", 2).assigned({"main": ["GPU-n-0"]}, share=GIB),),
            Reason.HOLDER_UNKNOWN,
        ),
        (
            share("p", 1),
            ANNOTATION,
            (share("a", 2).assigned({"main": ["GPU-n-0"]}),),
            Reason.HOLDER_UNKNOWN,
        ),
        (
            share("p", 1),
            ANNOTATION,
            (WHOLE.assigned({"main": ["GPU-n-0"]}, share=GIB),),
            Reason.HOLDER_UNKNOWN,
        ),
    ],
)
def test_a_share_fits_or_is_told_why_not(
    asked: PodBuilder, on: NodeBuilder, pods: tuple[PodBuilder, ...], expected: Reason | None
) -> None:
    found = reasons(asked, state(on, *pods))

    assert expected == (Rejection(found).main if found else None)


def test_all_containers_of_a_pod_have_the_same_gpu_and_its_peak_is_counted() -> None:
    several = share("p", 4).sidecar("s", memory="2Gi").init("i", memory="7Gi")

    found = given_to(several.wants(container="b", memory="3Gi"), ANNOTATION, has("a", 15, 1))

    assert found == dict.fromkeys(("s", "i", "main", "b"), ("GPU-n-1",))
    assert given_to(several.wants(container="b", memory="4Gi"), ANNOTATION, has("a", 15, 1)) == (
        dict.fromkeys(("s", "i", "main", "b"), ("GPU-n-0",))
    )


def test_a_share_of_earlier_is_kept_while_there_is_room() -> None:
    demand = facts(share("p", 10)).demand
    assert demand is not None
    earlier = {"main": (pod_gpu := open_devices(state(ANNOTATION))[1],)}

    assert assign(demand, state(ANNOTATION, has("a", 14, 1)), listed=True, earlier=earlier) == (
        earlier
    )
    full = state(ANNOTATION, has("a", 15, 1))
    assert assign(demand, full, listed=True, earlier=earlier) == {"main": ("GPU-n-0",)}
    other_names = {"other": (pod_gpu,)}
    assert assign(demand, state(ANNOTATION), listed=True, earlier=other_names) == {
        "main": ("GPU-n-0",)
    }


def test_a_share_that_outlived_the_annotation_path_is_counted_as_a_gpu() -> None:
    plugin = TWO.inventory().plugin_path()

    assert state(plugin, has("a", 1, 0), has("b", 1, 0)).free == {"nvidia.com/gpu": 1}


def test_started_gpus_anywhere_come_before_vacant_ones_and_tight_before_roomy() -> None:
    def rank(on: NodeBuilder, *pods: PodBuilder) -> int:
        fit = fits(ask(share("p", 6)), state(on, *pods))
        assert isinstance(fit, Fit)
        return binpack(fit)

    large = TWO.cards(memory_bytes=80 * GIB).annotation_path()
    ranks = [
        rank(ANNOTATION, has("a", 18, 0)),
        rank(ANNOTATION, has("a", 10, 0)),
        rank(large, has("a", 10, 0)),
        rank(ANNOTATION, WHOLE.assigned({"main": ["GPU-n-0"]})),
        rank(ANNOTATION),
        rank(large),
    ]

    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == len(ranks)


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=30))
def test_no_gpu_is_given_out_beyond_its_memory(asks: list[tuple[int, bool]]) -> None:
    told = Told(node("n").with_gpus(3).cards(memory_bytes=24 * GIB).annotation_path())
    used: dict[str, int] = {}
    whole: list[str] = []
    for number, (size, hold) in enumerate(asks):
        asked = share(f"p{number}", size) if size else pod(f"p{number}").wants(gpus=1)
        if hold:
            told.cluster.hold(facts(asked), NodeName("n"), seconds=5)
        outcome = told.bid(asked, "n")
        if isinstance(outcome, Rejection):
            continue
        (device,) = outcome.assignment.devices()  # type: ignore[union-attr]  # not settled
        if size:
            used[device] = used.get(device, 0) + size
        else:
            whole.append(device)

    assert all(size <= 24 for size in used.values())
    assert len(set(whole)) == len(whole)
    assert not used.keys() & set(whole)

"""An auditor that finds nothing proves something only if it finds what is there."""

from __future__ import annotations

import pytest

from tests.builders import PodBuilder, pod
from tests.ha.books import Books, Hardware

HARDWARE = Hardware(
    devices={"ann": frozenset({"GPU-0", "GPU-1"}), "other": frozenset({"GPU-2"})},
    counts={"plug": 2},
)
WAITING = pod("p").wants(gpus=1)
HOLDER = WAITING.on("ann").assigned({"main": ["GPU-0"]})
RIVAL = pod("q").wants(gpus=1).on("ann").assigned({"main": ["GPU-0"]})
COUNTED = [pod(name).wants(gpus=1).on("plug").assigned({}) for name in "xyz"]


def seen(*pods: PodBuilder, gone: bool = False) -> list[str]:
    """What is wrong after these were seen one after the other; `gone` is about the last one."""
    books = Books(HARDWARE)
    for number, one in enumerate(pods, start=1):
        books.see(one.raw(), gone=gone and number == len(pods), now=float(number))
    return books.faults


@pytest.mark.parametrize(
    "pods",
    [
        [WAITING, HOLDER],
        [HOLDER, HOLDER.phase("Succeeded"), RIVAL],
        [HOLDER, HOLDER.phase("Failed"), RIVAL],
        [HOLDER, RIVAL.assigned({"main": ["GPU-1"]}, epoch=2)],
        COUNTED[:2],
        [*COUNTED[:2], COUNTED[0].phase("Succeeded"), COUNTED[2]],
    ],
)
def test_what_is_in_order_is_no_fault(pods: list[PodBuilder]) -> None:
    assert seen(*pods) == []


@pytest.mark.parametrize(
    ("pods", "fault"),
    [
        ([HOLDER, RIVAL], "q (uid-q) got GPU-0, which p holds"),
        ([HOLDER, HOLDER.deleting(), RIVAL], "got GPU-0, which p holds"),
        ([HOLDER, HOLDER.assigned({"main": ["GPU-1"]})], "p (uid-p) was ann"),
        ([HOLDER, HOLDER.on("other")], "is other"),
        ([HOLDER.assigned({"main": ["GPU-2"]})], "got GPUs that ann does not have"),
        ([HOLDER.assigned({"main": ["GPU-0", "GPU-1"]})], "asked for 1 GPUs and got"),
        ([WAITING.on("ann")], "was bound to ann by nobody of ours"),
        ([HOLDER.assigned({"main": ["GPU-0"]}, epoch=2), COUNTED[0]], "in epoch 1 after one of 2"),
        (COUNTED, "z (uid-z) is one too many on plug"),
        ([COUNTED[0].assigned({"main": ["GPU-0"]})], "or chose"),
    ],
)
def test_what_must_never_be_is_a_fault(pods: list[PodBuilder], fault: str) -> None:
    (found,) = seen(*pods)
    assert fault in found


def test_a_pod_that_goes_without_ever_being_bound_is_lost() -> None:
    assert seen(WAITING, gone=True) == ["p (uid-p) is gone and was never bound"]
    assert seen(HOLDER, HOLDER, gone=True) == []


def test_what_a_listing_lacks_is_gone_and_what_it_shows_counts() -> None:
    books = Books(HARDWARE)
    books.relisted([HOLDER.raw(), pod("r").raw()], now=1.0)
    books.relisted([RIVAL.raw()], now=2.0)

    assert books.faults == ["r (uid-r) is gone and was never seen bound"]
    assert books.holders == {"GPU-0": "uid-q"}
    assert books.living == {"uid-q"}
    assert [record.bound for record in books.bound] == [1.0, 2.0]

"""GPU time in the records of a month: nothing lost, nothing counted twice, never too large."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.usage import (
    OTHERS,
    Month,
    Slice,
    UsageError,
    bounded,
    counted,
    month_of,
    months_between,
    read_month,
)

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


def stretch(begin: float, end: float, installed: float = 8, **held: float) -> Slice:
    """Seconds of November; `a=2` holds two GPUs."""
    first, last = (BEGIN + timedelta(seconds=each) for each in (begin, end))
    return Slice(begin=first, end=last, held=held, installed=installed)


def total(month: Month, name: str) -> float:
    return sum(month.held.get(name, {}).values())


def november(*slices: Slice) -> Month:
    return counted(Month(name="2026-11"), slices)


def test_time_is_kept_by_the_hour_in_which_it_passed() -> None:
    month = november(stretch(3000, 7800, a=2))

    assert month.held == {"a": {0: 1200, 1: 7200, 2: 1200}}
    assert month.installed == {0: 4800, 1: 28800, 2: 4800}
    assert month.upto == BEGIN + timedelta(seconds=7800)


def test_what_somebody_counted_already_is_not_counted_again() -> None:
    """Two leaders saw the same time, and one of them a part of it alone."""
    first = november(stretch(0, 600, a=1))

    assert total(counted(first, [stretch(0, 600, a=1)]), "a") == 600
    assert total(counted(first, [stretch(300, 900, a=1)]), "a") == 900


def test_each_month_takes_its_own_part() -> None:
    across = Slice(
        begin=datetime(2026, 11, 30, 23, 59, tzinfo=UTC),
        end=datetime(2026, 12, 1, 0, 2, tzinfo=UTC),
        held={"a": 1.0},
        installed=1.0,
    )

    parts = [
        total(counted(Month(name=name), [across]), "a")
        for name in months_between(across.begin, across.end)
    ]

    assert parts == [60, 120]


@given(
    cuts=st.lists(st.integers(0, 29 * 86400), min_size=2, max_size=12, unique=True).map(sorted),
    writes=st.lists(st.integers(0, 10), max_size=6),
    gpus=st.floats(0.1, 64, allow_nan=False),
)
def test_however_it_is_cut_and_written_the_sum_is_the_same(
    cuts: Sequence[int], writes: Sequence[int], gpus: float
) -> None:
    slices = [stretch(begin, end, a=gpus) for begin, end in pairwise(cuts)]
    month = Month(name="2026-11")
    for upto in sorted(writes):
        month = counted(month, slices[:upto])

    month = counted(month, slices)

    assert total(month, "a") == pytest.approx(gpus * (cuts[-1] - cuts[0]))


def test_a_month_comes_back_as_it_was_written() -> None:
    month = november(stretch(0, 7200, a=1, b=0.5))

    again, faults = read_month("2026-11", bounded(month))

    assert (again, faults) == (month, [])


@pytest.mark.parametrize(("namespaces", "every"), [(1, 1), (400, 1), (4000, 24)])
def test_it_fits_into_a_config_map_whoever_uses_gpus(namespaces: int, every: int) -> None:
    """Days in place of hours first; then the least users are put together, and none is lost."""
    hours = 720
    names = [f"team-{number:04d}-of-a-rather-long-name" for number in range(namespaces)]
    month = Month(
        name="2026-11",
        upto=BEGIN + timedelta(hours=hours),
        held={n: dict.fromkeys(range(0, hours, every), 360_000.0 + i) for i, n in enumerate(names)},
        installed=dict.fromkeys(range(hours), 28800.0),
    )

    data = bounded(month)
    again, faults = read_month("2026-11", data)

    assert sum(len(key) + len(text) for key, text in data.items()) <= 900_000
    assert not faults
    whole = sum(total(month, name) for name in month.held)
    assert sum(total(again, name) for name in again.held) == pytest.approx(whole)
    assert (OTHERS in again.held) == (namespaces == 4000)
    assert names[-1] in again.held, "the greatest user is told apart"


def test_a_record_that_somebody_edited_costs_only_what_was_edited() -> None:
    data = bounded(november(stretch(0, 3600, a=1, b=2)))

    month, faults = read_month("2026-11", {**data, "a": '{"v":9}', "NOT A NAMESPACE": "x"})

    assert (total(month, "b"), total(month, "a")) == (7200, 0)
    assert faults == ["a: version 9 is not known to this release"]


@given(st.dictionaries(st.sampled_from(["_record", "_installed", "a", "_others"]), st.text()))
def test_garbage_is_told_and_nothing_else(data: dict[str, str]) -> None:
    month, faults = read_month("2026-11", data)

    assert month.upto is None
    assert len(faults) == len(data)


def test_periods_begin_at_a_whole_hour() -> None:
    month = november(stretch(0, 3 * 3600, a=1))

    assert month.since(BEGIN + timedelta(minutes=90)) == {"a": 7200}
    assert month.since(BEGIN - timedelta(days=3)) == {"a": 10800}
    assert month.installed_since(BEGIN + timedelta(hours=2)) == 28800


@pytest.mark.parametrize("name", ["", "2026-13", "2026-1", "11-2026"])
def test_what_is_no_month_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no month"):
        counted(Month(name=name), [stretch(0, 1)])


def test_months_are_those_of_utc() -> None:
    zone = datetime.fromisoformat("2026-12-01T00:30:00+02:00")

    assert month_of(zone) == "2026-11"
    assert months_between(zone, datetime(2027, 1, 1, tzinfo=UTC)) == [
        "2026-11",
        "2026-12",
        "2027-01",
    ]

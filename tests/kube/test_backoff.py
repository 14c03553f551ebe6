"""Delays double, stay below the cap, are random in their upper half, and start anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kube.backoff import Backoff
from kube.events import TokenBucket


def test_delays_double_up_to_the_cap_and_start_anew() -> None:
    backoff = Backoff(first=1, cap=6, uniform=lambda _, high: high)

    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 6, 6]
    backoff.reset()
    assert backoff.next() == 1


@given(st.integers(0, 40))
def test_a_delay_is_in_the_upper_half_of_its_range(failures: int) -> None:
    backoff = Backoff(first=0.5, cap=30)
    for _ in range(failures):
        backoff.next()
    ceiling = min(0.5 * 2**failures, 30)

    assert ceiling / 2 <= backoff.next() <= ceiling


@given(st.lists(st.floats(0, 10), max_size=60))
def test_a_bucket_never_gives_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    bucket = TokenBucket(rate=2, burst=5)
    now = taken = 0.0
    for pause in pauses:
        now += pause
        taken += bucket.take(now=now)
        assert taken <= 5 + 2 * now + 1e-6


def test_a_bucket_fills_again() -> None:
    bucket = TokenBucket(rate=2, burst=2)

    assert [bucket.take(now=10) for _ in range(3)] == [True, True, False]
    assert [bucket.take(now=10.4), bucket.take(now=10.6)] == [False, True]

"""When a candidate may take a Lease and what it writes; the clock is an argument."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kube.leases import Candidacy, epoch_after, epoch_by_clock
from kube.objects import Lease, LeaseSpec

WALL = "2026-01-01T00:00:00.000000Z"


def held(by: str | None, *, epoch: int = 1, renewed: str = WALL, seconds: int = 15) -> Lease:
    return Lease(
        spec=LeaseSpec(
            holder_identity=by,
            lease_duration_seconds=seconds,
            acquire_time=WALL,
            renew_time=renewed,
            lease_transitions=epoch,
        )
    )


def candidate() -> Candidacy:
    return Candidacy(identity="me", duration=15)


def one() -> int:
    return 1


def test_a_lease_that_nobody_holds_is_free_at_once() -> None:
    me = candidate()
    for lease in (Lease(), held(None), held("")):
        me.observe(lease, now=100)
        assert me.may_take(now=100)


def test_a_lease_of_another_is_free_when_it_has_not_changed_for_its_duration() -> None:
    me = candidate()
    me.observe(held("other"), now=100)

    assert not me.may_take(now=114.9)
    assert me.may_take(now=115)


def test_it_tells_for_how_long_another_must_be_left_alone() -> None:
    me = candidate()
    assert me.left(now=100) == 0

    me.observe(held("other"), now=100)
    assert (me.left(now=100), me.left(now=112), me.left(now=200)) == (15, 3, 0)

    me.observe(held("me"), now=300)
    assert me.left(now=300) == 0


def test_a_renewal_begins_the_wait_anew_whatever_the_clock_of_the_other_says() -> None:
    me = candidate()
    me.observe(held("other", renewed="2026-01-01T00:00:00.000000Z"), now=100)
    me.observe(held("other", renewed="1999-01-01T00:00:00.000000Z"), now=110)

    assert not me.may_take(now=124.9)
    assert me.may_take(now=125)


def test_a_renewal_that_is_seen_twice_counts_once() -> None:
    me = candidate()
    for now in (100, 105, 110):
        me.observe(held("other"), now=now)

    assert me.may_take(now=115)


def test_the_holder_says_for_how_long_it_must_be_left_alone() -> None:
    me = candidate()
    me.observe(held("other", seconds=60), now=100)

    assert not me.may_take(now=159)
    assert me.may_take(now=160)


def test_the_first_leader_has_epoch_1_and_each_later_one_the_next() -> None:
    me = candidate()
    assert epoch_after(me.highest, first=one) == 1

    me.observe(held("other", epoch=7), now=1)
    assert epoch_after(me.highest, first=one) == 8

    me.observe(held("me", epoch=8), now=2)
    assert epoch_after(me.highest, first=one) == 9


def test_a_lease_that_was_deleted_or_set_back_brings_no_epoch_back() -> None:
    me = candidate()
    me.observe(held("other", epoch=7), now=1)
    me.observe(Lease(), now=2)
    assert epoch_after(me.highest, first=one) == 8

    me.observe(held("other", epoch=0), now=3)
    assert epoch_after(me.highest, first=one) == 8


def test_a_lease_of_which_nobody_knows_the_count_is_numbered_by_the_clock() -> None:
    by_clock = epoch_by_clock()
    for highest in (0, 1, 1000):
        assert epoch_after(highest, first=epoch_by_clock) >= by_clock
    assert epoch_after(by_clock, first=epoch_by_clock) == by_clock + 1

    assert by_clock < 2**31 - 1
    assert epoch_after(7, first=lambda: -5) == 8  # a clock that stands at 1970


def test_a_count_that_is_too_high_to_be_one_is_not_counted_on() -> None:
    me = candidate()
    me.observe(held("other", epoch=2**31 - 1), now=1)
    by_clock = epoch_by_clock()
    assert by_clock <= epoch_after(me.highest, first=epoch_by_clock) <= epoch_by_clock()

    me.observe(held("other", epoch=100_000_007), now=2)
    me.observe(held("other", epoch=2**31 - 2), now=3)
    assert epoch_after(me.highest, first=epoch_by_clock) == 100_000_008


def test_who_acquires_names_itself_the_epoch_and_how_long_to_wait() -> None:
    spec = candidate().acquisition(WALL, epoch=9)

    assert (spec.holder_identity, spec.lease_transitions) == ("me", 9)
    assert (spec.lease_duration_seconds, spec.acquire_time, spec.renew_time) == (15, WALL, WALL)


def test_renewal_and_release_keep_the_epoch_and_the_time_of_acquisition() -> None:
    me = candidate()
    me.observe(held("me", epoch=7), now=1)
    later = "2026-01-01T00:00:02.000000Z"

    renewed, released = me.renewal(later), me.release(later)

    assert (renewed.holder_identity, released.holder_identity) == ("me", "")
    for spec in (renewed, released):
        assert (spec.lease_transitions, spec.acquire_time, spec.renew_time) == (7, WALL, later)


def test_only_the_very_term_counts_as_held() -> None:
    me = candidate()
    me.observe(held("me", epoch=7), now=1)

    assert me.holds(7)
    assert not me.holds(6)
    me.observe(held("other", epoch=7), now=2)
    assert not me.holds(7)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "", "me", "other", "third"]),
            st.integers(0, 50),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_an_epoch_is_above_every_epoch_ever_seen(
    records: list[tuple[str | None, int, bool]],
) -> None:
    me = candidate()
    for now, (holder, epoch, deleted) in enumerate(records):
        me.observe(Lease() if deleted else held(holder, epoch=epoch), now=now)

    taken = epoch_after(me.highest, first=one)

    assert taken > max((epoch for _, epoch, deleted in records if not deleted), default=0)

"""Since when a GPU is unhealthy, and when it is trusted again. Times are seconds after noon."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.model import Health
from nodeagent.inventory.standing import (
    HoldDown,
    Moment,
    Standing,
    Verdict,
    advance,
    cause_of,
    recalled,
)

HEALTHY, FAULTY, LOST, UNMONITORED = (
    Health.HEALTHY,
    Health.FAULTY,
    Health.LOST,
    Health.UNMONITORED,
)
RULE = HoldDown(base=60.0, longest=3600.0, memory=7200.0)
FINE = Verdict()
ECC = Verdict(health=FAULTY, reason="ECC")
XID = Verdict(health=FAULTY, reason="Xid 79: off", weight=10.0)
GONE = Verdict(health=LOST, reason="GPU is lost")
SILENT = Verdict(health=UNMONITORED, reason="no answer")


def at(seconds: float) -> Moment:
    return Moment(seconds, datetime(2026, 1, 2, 12, tzinfo=UTC) + timedelta(seconds=seconds))


def after(*looks: tuple[float, Verdict], start: Standing | None = None) -> Standing:
    standing = start or Standing()
    for seconds, verdict in looks:
        standing = advance(standing, verdict, now=at(seconds), rule=RULE)
    return standing


def test_it_is_unhealthy_at_once_since_when_it_was_first_seen() -> None:
    standing = after((1.5, ECC), (2, ECC), (90, ECC))
    assert (standing.health, standing.reason) == (FAULTY, "ECC")
    assert standing.since == at(1).wall
    assert standing.shown(RULE) == "ECC"


def test_it_is_healthy_again_after_the_failure_was_not_seen_for_a_while() -> None:
    waiting = after((0, ECC), (10, FINE), (69, FINE))
    assert waiting.health is FAULTY
    assert waiting.shown(RULE) == "ECC; not seen since 2026-01-02T12:00:10Z, held for 60 s"
    assert cause_of(waiting.shown(RULE)) == "ECC"
    healthy = after((70, FINE), start=waiting)
    assert (healthy.health, healthy.since, healthy.shown(RULE)) == (HEALTHY, None, "")


def test_a_failure_that_is_seen_again_starts_the_wait_anew() -> None:
    standing = after((0, ECC), (10, FINE), (60, ECC), (65, FINE), (124, FINE))
    assert standing.health is FAULTY
    assert standing.since == at(0).wall
    assert after((125, FINE), start=standing).health is HEALTHY


def test_each_failure_soon_after_the_last_one_doubles_the_wait() -> None:
    standing, now = Standing(), 0.0
    for held in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        standing = after((now, ECC), (now, FINE), (now + held - 1, FINE), start=standing)
        assert standing.health is FAULTY
        now += held
        standing = after((now, FINE), start=standing)
        assert standing.health is HEALTHY
    late = after((now + RULE.memory + 1, ECC), start=standing)
    assert late.strikes == 1


def test_a_storm_of_the_same_failure_is_one_failure() -> None:
    storm = [(second, verdict) for second in range(40) for verdict in (XID, FINE)]
    assert after(*storm).strikes == 1


def test_an_xid_that_asks_for_a_reset_is_trusted_late_unless_the_gpu_was_away() -> None:
    struck = after((0, XID), (1, FINE), (600, FINE))
    assert struck.health is FAULTY
    assert after((601, FINE), start=struck).health is HEALTHY
    reset = after((0, XID), (1, GONE), (2, FINE), (61, FINE))
    assert (reset.health, reset.since) == (LOST, at(1).wall)
    assert after((62, FINE), start=reset).health is HEALTHY


def test_a_gpu_that_was_only_out_of_sight_is_trusted_at_once() -> None:
    assert after((0, SILENT), (1, FINE)) == Standing()


def test_out_of_sight_a_failure_is_neither_forgotten_nor_waited_for() -> None:
    standing = after((0, ECC), (1, FINE), (2, SILENT))
    assert (standing.health, standing.reason) == (FAULTY, "ECC")
    # The wait begins where it is seen to work.
    assert after((65, FINE), (120, FINE), start=standing).health is FAULTY
    assert after((65, FINE), (125, FINE), start=standing).health is HEALTHY


def test_a_lost_gpu_keeps_the_reason_that_it_was_lost_with() -> None:
    other = Verdict(health=LOST, reason="no longer listed")
    assert after((0, GONE), (1, other)).reason == "GPU is lost"


@pytest.mark.parametrize("health", [FAULTY, LOST])
def test_a_restarted_agent_goes_on_waiting(health: Health) -> None:
    shown = "Xid 48: x; not seen since 2026-01-02T11:59:00Z, held for 60 s"
    standing = recalled(health, shown, since=at(-90).wall, weight=1.0, now=at(0))
    assert (standing.reason, standing.since) == ("Xid 48: x", at(-90).wall)
    assert after((0, FINE), (59, FINE), start=standing).health is health
    assert after((0, FINE), (60, FINE), start=standing).health is HEALTHY
    unknown = recalled(health, "x", since=None, weight=1.0, now=at(0))
    assert unknown.since == at(0).wall


LOOKS = st.lists(
    st.tuples(st.floats(0, 500), st.sampled_from([FINE, ECC, XID, GONE, SILENT])), max_size=30
)


@given(LOOKS)
def test_whatever_was_seen_it_is_never_trusted_early_and_always_in_the_end(
    steps: list[tuple[float, Verdict]],
) -> None:
    standing, now, failed_at = Standing(), 0.0, float("-inf")
    for pause, verdict in steps:
        now += pause
        standing = after((now, verdict), start=standing)
        if verdict.health in (FAULTY, LOST):
            failed_at = now
        if verdict is not FINE:
            assert standing.health is not HEALTHY
        if standing.health is HEALTHY:
            assert now - failed_at >= RULE.base
        assert (standing.since is None) is (standing.health is HEALTHY)
    healed = after((now, FINE), (now + RULE.longest, FINE), start=standing)
    assert healed.health is HEALTHY

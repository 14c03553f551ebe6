"""What is issued, for every state that can be found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from certs.authority import (
    KeyPair,
    Subject,
    Usage,
    authorities,
    examine,
    is_issued_by,
    issue,
    new_authority,
)
from certs.issue import Issued, carry_out
from certs.names import leaves
from certs.plan import make_plan
from certs.rules import Rules
from certs.state import State, Why
from tests.certs.making import DAY

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LEAVES = leaves("gpudetour-system", webhook_hosts=["127.0.0.1"])
MINUTE = timedelta(minutes=1)
RULES = Rules(authority=360 * DAY, server=30 * DAY, client=90 * DAY, propagation=3 * MINUTE)
SECRETS = [
    "gpudetour-ca",
    "gpudetour-webhook-tls",
    "gpudetour-extender-tls",
    "gpudetour-scheduler-client",
]
KEPT = [Why.KEPT] * 4

Mutable = dict[str, Mapping[str, bytes]]


def converge(
    state: Mutable, *, now: datetime = NOW, force: bool = False, bundles: tuple[bytes, ...] = ()
) -> Issued:
    found = State(secrets=state, bundles=bundles)
    plan = make_plan(found, LEAVES, now=now, rules=RULES, force=force)
    return carry_out(plan, LEAVES, now=now, rules=RULES)


def settled(state: Mutable, *, now: datetime = NOW) -> Mutable:
    """Make passes until nothing is left to do at that time."""
    while (after := stored(converge(state, now=now))) != state:
        state = after
    return state


def stored(issued: Issued) -> Mutable:
    return {outcome.secret: outcome.data for outcome in issued.outcomes}


def why(issued: Issued) -> list[Why]:
    return [outcome.why for outcome in issued.outcomes]


@pytest.fixture
def state() -> Mutable:
    """Installed, and known to everybody."""
    return settled(settled({}, now=NOW - 5 * MINUTE))


def test_from_nothing_everything_is_issued_by_one_authority() -> None:
    issued = converge({})

    assert [outcome.secret for outcome in issued.outcomes] == SECRETS
    assert why(issued) == [Why.MISSING] * 4
    for outcome in issued.outcomes[1:]:
        assert is_issued_by(outcome.data["tls.crt"], issued.bundle)
        assert outcome.data["ca.crt"] == issued.bundle


def test_a_second_run_changes_nothing(state: Mutable) -> None:
    again = converge(state)

    assert why(again) == KEPT
    assert stored(again) == state


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(0), KEPT),
        (HOUR, KEPT),
        (-HOUR + 10 * MINUTE, KEPT),
        (19 * DAY, KEPT),
        (20 * DAY, [Why.KEPT, Why.DUE, Why.DUE, Why.KEPT]),
        (31 * DAY, [Why.KEPT, Why.EXPIRED, Why.EXPIRED, Why.KEPT]),
        (40 * DAY, [Why.KEPT, Why.EXPIRED, Why.EXPIRED, Why.KEPT]),
        (60 * DAY, [Why.KEPT, Why.EXPIRED, Why.EXPIRED, Why.DUE]),
        (239 * DAY, [Why.KEPT, *[Why.EXPIRED] * 3]),
        (240 * DAY, [Why.DUE, *[Why.EXPIRED] * 3]),
        (400 * DAY, [Why.EXPIRED] * 4),
        (-DAY, [Why.UNUSABLE] * 4),
    ],
)
def test_certificates_are_renewed_after_two_thirds_of_their_lifetime(
    state: Mutable, age: timedelta, expected: list[Why]
) -> None:
    issued = converge(state, now=NOW + age)

    assert why(issued) == expected
    for outcome in issued.outcomes:
        assert NOW + age < outcome.not_after
    for outcome in issued.outcomes[1:]:
        assert any(is_issued_by(outcome.data["tls.crt"], ca) for ca in trusted(issued, NOW + age))


def trusted(issued: Issued, now: datetime) -> tuple[bytes, ...]:
    return authorities(issued.bundle, now=now)


def test_force_renews_the_leaves_only(state: Mutable) -> None:
    forced = converge(state, force=True)

    assert why(forced) == [Why.KEPT, Why.FORCED, Why.FORCED, Why.FORCED]
    assert forced.bundle == state["gpudetour-ca"]["ca.crt"]


def foreign() -> Mapping[str, bytes]:
    other = new_authority(now=NOW, lifetime=DAY)
    pair = issue(other, LEAVES[0].subject, now=NOW, lifetime=DAY)
    return {"tls.crt": pair.certificate, "tls.key": pair.key}


def client_for_server(state: Mutable) -> Mapping[str, bytes]:
    held = state["gpudetour-ca"]
    ca = KeyPair(certificate=held["tls.crt"], key=held["tls.key"])
    subject = Subject(common_name="gpudetour-webhook", usage=Usage.CLIENT)
    pair = issue(ca, subject, now=NOW, lifetime=30 * DAY)
    return {"tls.crt": pair.certificate, "tls.key": pair.key}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda _state: {}, Why.UNUSABLE),
        (lambda state: {**state["gpudetour-webhook-tls"], "tls.crt": b"x"}, Why.UNUSABLE),
        (lambda state: {**state["gpudetour-webhook-tls"], "tls.key": b""}, Why.UNUSABLE),
        (lambda state: state["gpudetour-ca"], Why.UNUSABLE),
        (lambda _state: foreign(), Why.UNUSABLE),
        (lambda state: state["gpudetour-extender-tls"], Why.NAMES),
        (client_for_server, Why.NAMES),
    ],
)
def test_broken_or_foreign_content_of_a_leaf_is_replaced(
    state: Mutable, found: Callable[[Mutable], Mapping[str, bytes]], expected: Why
) -> None:
    state["gpudetour-webhook-tls"] = found(state)
    issued = converge(state)

    assert why(issued) == [Why.KEPT, expected, Why.KEPT, Why.KEPT]
    assert why(converge(stored(issued))) == KEPT


@pytest.mark.parametrize(
    "found",
    [
        lambda _state: {},
        lambda state: {**state["gpudetour-ca"], "tls.key": b"x"},
        lambda state: state["gpudetour-webhook-tls"],
        lambda _state: foreign(),
    ],
)
def test_an_authority_whose_key_is_lost_is_trusted_until_all_know_the_next_one(
    state: Mutable, found: Callable[[Mutable], Mapping[str, bytes]]
) -> None:
    first = state["gpudetour-ca"]["tls.crt"]
    served = [state[name]["tls.crt"] for name in SECRETS[1:]]
    state["gpudetour-ca"] = found(state)
    issued = converge(state)
    second = issued.outcomes[0].data["tls.crt"]

    assert why(issued) == [Why.UNUSABLE, *KEPT[1:]]
    assert trusted(issued, NOW) == (second, first)
    assert [outcome.data["tls.crt"] for outcome in issued.outcomes[1:]] == served
    waiting = settled(stored(issued))
    assert why(converge(waiting, now=NOW + 2 * MINUTE, force=True)) == [
        Why.KEPT,
        *[Why.WAITING] * 3,
    ]
    later = converge(waiting, now=NOW + 3 * MINUTE, force=True)
    assert why(later) == [Why.KEPT, *[Why.FORCED] * 3]
    for outcome in later.outcomes[1:]:
        assert is_issued_by(outcome.data["tls.crt"], second)


def test_an_authority_of_which_nothing_is_in_service_is_not_trusted_on(state: Mutable) -> None:
    del state["gpudetour-webhook-tls"], state["gpudetour-scheduler-client"]
    state["gpudetour-extender-tls"] = foreign()
    state["gpudetour-ca"] = {**state["gpudetour-ca"], "tls.key": b"x"}
    issued = converge(state)

    assert why(issued) == [Why.UNUSABLE, Why.MISSING, Why.UNUSABLE, Why.MISSING]
    assert len(trusted(issued, NOW)) == 1


def test_changed_hosts_are_reissued_and_nothing_else(state: Mutable) -> None:
    other = leaves("gpudetour-system", webhook_hosts=["::1"])
    plan = make_plan(State(secrets=state), other, now=NOW, rules=RULES)

    assert [step.why for step in plan.leaves] == [Why.NAMES, Why.KEPT, Why.KEPT]


def test_a_new_authority_is_trusted_before_it_signs_and_the_former_until_it_expires(
    state: Mutable,
) -> None:
    first = state["gpudetour-ca"]["tls.crt"]
    due, half_way = NOW + 240 * DAY, NOW + 300 * DAY
    introduced = converge(state, now=due)
    second = introduced.outcomes[0].data["tls.crt"]

    assert trusted(introduced, due) == (second, first)
    assert all(outcome.data["ca.crt"] == introduced.bundle for outcome in introduced.outcomes)
    # Leaves that are due meanwhile are issued by the first one.
    known = settled(stored(introduced), now=half_way - DAY)
    for name in SECRETS[1:]:
        assert is_issued_by(known[name]["tls.crt"], first)
    taken_over = converge(known, now=half_way, force=True)
    for outcome in taken_over.outcomes[1:]:
        assert is_issued_by(outcome.data["tls.crt"], second)
    assert trusted(taken_over, half_way) == (second, first)
    # The key of the first one is gone.
    assert not any(key.startswith("retiring") for key in taken_over.outcomes[0].data)
    last = NOW + 360 * DAY
    assert trusted(converge(settled(stored(taken_over), now=last - HOUR), now=last), last) == (
        second,
    )


@pytest.mark.parametrize("bundle", [b"", b"someone's"])
def test_the_wait_begins_anew_when_the_new_authority_is_missing_somewhere(
    state: Mutable, bundle: bytes
) -> None:
    due = NOW + 240 * DAY
    known = settled(stored(converge(state, now=due)), now=due)
    missing = converge(known, now=NOW + 320 * DAY, bundles=(bundle,))
    everywhere = (missing.bundle,)

    assert "trusted-since" not in missing.outcomes[0].data
    later = NOW + 320 * DAY + MINUTE
    seen = stored(converge(stored(missing), now=later, bundles=everywhere))
    assert seen["gpudetour-ca"]["trusted-since"] == later.isoformat().encode()
    still = converge(seen, now=later + 2 * MINUTE, bundles=everywhere)
    assert still.outcomes[0].data["retiring.crt"] == state["gpudetour-ca"]["tls.crt"]
    done = converge(seen, now=later + 3 * MINUTE, bundles=everywhere)
    assert "retiring.crt" not in done.outcomes[0].data


@pytest.mark.parametrize(
    "told", [b"", b"\xff", b"yesterday", b"2026-11-22T12:00:00", b"2126-11-22T12:00:00+00:00"]
)
def test_a_time_that_cannot_be_is_now(state: Mutable, told: bytes) -> None:
    state["gpudetour-ca"] = {**state["gpudetour-ca"], "trusted-since": told}

    data = converge(state).outcomes[0].data
    assert data["trusted-since"] == NOW.isoformat().encode()


def test_a_leaf_that_a_former_authority_issued_stays_until_it_is_due(state: Mutable) -> None:
    later = NOW + 300 * DAY
    renewed = settled(settled(state, now=NOW + 240 * DAY), now=later)
    ca = KeyPair(certificate=state["gpudetour-ca"]["tls.crt"], key=state["gpudetour-ca"]["tls.key"])
    pair = issue(ca, LEAVES[0].subject, now=later, lifetime=30 * DAY)
    leaf = {"tls.crt": pair.certificate, "tls.key": pair.key}
    renewed["gpudetour-webhook-tls"] = {**renewed["gpudetour-webhook-tls"], **leaf}

    assert why(converge(renewed, now=later))[1] is Why.KEPT
    due = converge(renewed, now=later + 20 * DAY).outcomes[1]
    assert due.why is Why.DUE
    assert is_issued_by(due.data["tls.crt"], renewed["gpudetour-ca"]["tls.crt"])


def test_a_leaf_that_ends_with_a_former_authority_is_replaced_once_another_can_sign(
    state: Mutable,
) -> None:
    half_way = NOW + 300 * DAY
    introduced = settled(state, now=NOW + 240 * DAY)
    client = "gpudetour-scheduler-client"
    known = stored(converge(introduced, now=NOW + 290 * DAY, force=True))
    assert examine(pair_of(known[client])).not_after == NOW + 360 * DAY - 5 * MINUTE
    taken_over = converge(known, now=half_way)

    assert why(taken_over) == [Why.KEPT, Why.KEPT, Why.KEPT, Why.DUE]
    assert taken_over.outcomes[3].not_after == half_way + 90 * DAY


def pair_of(held: Mapping[str, bytes]) -> KeyPair:
    return KeyPair(certificate=held["tls.crt"], key=held["tls.key"])


def test_what_the_release_before_left_goes_on(state: Mutable) -> None:
    """It knew no succession, and gave every leaf the same lifetime."""
    ca = {k: v for k, v in state["gpudetour-ca"].items() if k in ("tls.crt", "tls.key", "ca.crt")}

    assert why(converge({**state, "gpudetour-ca": ca})) == KEPT


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"authority": 59 * MINUTE}, "--ca-lifetime must be at least 20 times"),
        ({"server": 17 * MINUTE}, "--server-lifetime and --client-lifetime must be at least 6"),
        ({"client": 17 * MINUTE}, "--server-lifetime and --client-lifetime must be at least 6"),
        ({"propagation": timedelta(0)}, "--propagation must be more than 0"),
    ],
)
def test_lifetimes_that_leave_no_time_for_a_renewal_are_refused(
    wrong: dict[str, timedelta], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RULES, **wrong)

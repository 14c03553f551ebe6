"""What is issued, for every state that can be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from certs.authority import KeyPair, Subject, Usage, authorities, is_issued_by, issue, new_authority
from certs.issue import Issued, Lifetimes, carry_out
from certs.names import leaves
from certs.plan import State, Why, make_plan
from tests.certs.making import DAY

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LEAVES = leaves("gpudetour-system", webhook_hosts=["127.0.0.1"])
LIFETIMES = Lifetimes(authority=365 * DAY, leaf=30 * DAY)
SECRETS = [
    "gpudetour-ca",
    "gpudetour-webhook-tls",
    "gpudetour-extender-tls",
    "gpudetour-scheduler-client",
]
KEPT = [Why.KEPT] * 4

Mutable = dict[str, Mapping[str, bytes]]


def converge(state: State, *, now: datetime = NOW, force: bool = False) -> Issued:
    plan = make_plan(state, LEAVES, now=now, force=force)
    return carry_out(plan, LEAVES, now=now, lifetimes=LIFETIMES)


def stored(issued: Issued) -> Mutable:
    return {outcome.secret: outcome.data for outcome in issued.outcomes}


def why(issued: Issued) -> list[Why]:
    return [outcome.why for outcome in issued.outcomes]


@pytest.fixture
def state() -> Mutable:
    return stored(converge({}))


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


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(0), KEPT),
        (19 * DAY, KEPT),
        (20 * DAY, [Why.KEPT, Why.DUE, Why.DUE, Why.DUE]),
        (31 * DAY, [Why.KEPT, Why.DUE, Why.DUE, Why.DUE]),
        (244 * DAY, [Why.DUE, Why.AUTHORITY, Why.AUTHORITY, Why.AUTHORITY]),
        (400 * DAY, [Why.DUE, Why.AUTHORITY, Why.AUTHORITY, Why.AUTHORITY]),
        (-DAY, [Why.UNUSABLE, Why.UNUSABLE, Why.UNUSABLE, Why.UNUSABLE]),
    ],
)
def test_certificates_are_renewed_after_two_thirds_of_their_lifetime(
    state: Mutable, age: timedelta, expected: list[Why]
) -> None:
    assert why(converge(state, now=NOW + age)) == expected


def test_force_renews_the_leaves_only(state: Mutable) -> None:
    forced = converge(state, force=True)

    assert why(forced) == [Why.KEPT, Why.FORCED, Why.FORCED, Why.FORCED]
    assert forced.bundle == state["gpudetour-ca"]["ca.crt"]


def foreign() -> Mapping[str, bytes]:
    other = new_authority(now=NOW, lifetime=DAY)
    pair = issue(other, LEAVES[0].subject, now=NOW, lifetime=DAY)
    return {"tls.crt": pair.certificate, "tls.key": pair.key}


def client_for_server(state: State) -> Mapping[str, bytes]:
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
    state: Mutable, found: Callable[[State], Mapping[str, bytes]], expected: Why
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
def test_a_broken_authority_is_replaced_with_all_that_it_issued_and_trusted_no_more(
    state: Mutable, found: Callable[[State], Mapping[str, bytes]]
) -> None:
    state["gpudetour-ca"] = found(state)
    issued = converge(state)

    assert why(issued) == [Why.UNUSABLE, Why.AUTHORITY, Why.AUTHORITY, Why.AUTHORITY]
    assert len(authorities(issued.bundle, now=NOW)) == 1
    assert why(converge(stored(issued))) == KEPT


def test_changed_hosts_are_reissued_and_nothing_else(state: Mutable) -> None:
    other = leaves("gpudetour-system", webhook_hosts=["::1"])
    plan = make_plan(state, other, now=NOW)

    assert [step.why for step in plan.leaves] == [Why.NAMES, Why.KEPT, Why.KEPT]


def test_a_former_authority_is_trusted_until_it_expires(state: Mutable) -> None:
    first = state["gpudetour-ca"]["tls.crt"]
    later = NOW + 250 * DAY
    renewed = converge(state, now=later)
    second = renewed.outcomes[0].data["tls.crt"]

    assert authorities(renewed.bundle, now=later) == (second, first)
    assert renewed.outcomes[1].data["ca.crt"] == renewed.bundle
    again = converge(stored(renewed), now=later)
    assert why(again) == KEPT
    assert again.bundle == renewed.bundle

    expired = converge(stored(renewed), now=NOW + 366 * DAY)
    assert expired.bundle == second


def test_a_leaf_that_the_former_authority_issued_is_replaced(state: Mutable) -> None:
    renewed = stored(converge(state, now=NOW + 250 * DAY))
    renewed["gpudetour-webhook-tls"] = state["gpudetour-webhook-tls"]

    assert why(converge(renewed, now=NOW + 250 * DAY))[:2] == [Why.KEPT, Why.UNUSABLE]

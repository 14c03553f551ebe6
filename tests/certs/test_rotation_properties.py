"""Whatever happens to the processes that rotate, everybody who presents a certificate is believed
by everybody, however late they read.
"""

from __future__ import annotations

import copy
import dataclasses
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certs.names import leaves
from certs.state import Why
from tests.certs.cluster import CONFIGURATION
from tests.certs.site import CLIENT, EXTENDER, RULES, TIGHT, WEBHOOK, D, Site, Wanted, verifies

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
WANTED = Wanted(names=leaves("gpudetour-system"))

#: kube-scheduler reads its bundle when it starts: once in the sixth of an authority's life for
#: which it is known but signs nothing. The processes that write it take their time as well.
RESTARTED = RULES.authority / 6 - 2 * D
#: Whoever copies the client certificate has a third of its life.
COPIED = RULES.client / 3 - 2 * D


class Act(NamedTuple):
    """After `wait`, one process makes a pass; something happens to it at write number `at`."""

    wait: float
    kind: str
    at: int


acts = st.lists(
    st.builds(
        Act,
        st.floats(0.01, 0.5),
        st.sampled_from(["pass", "force", "crash", "overtaken", "frozen", "nothing"]),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=60,
)


def check(site: Site) -> None:
    """Every certificate that may be presented now is verifiable with all that may be trusted.

    Unless the site is patient with it, kube-scheduler's files are read as soon as all others.
    """
    restarted, copied = (RESTARTED, COPIED) if site.patient else (D, D)
    for presented, trusted, what in (
        (site.held(WEBHOOK), site.held(CONFIGURATION), "webhook by the API server"),
        (site.held(EXTENDER), site.held(CLIENT, lag=restarted), "extender by the scheduler"),
        (site.held(CLIENT, lag=copied), site.held(EXTENDER), "scheduler by the extender"),
    ):
        bundles = [found["ca.crt"] for found in trusted]
        for found in presented:
            for bundle in bundles:
                assert verifies(found["tls.crt"], bundle, site.now), what


def others(site: Site, *, passes: int) -> None:
    for _ in range(passes):
        site.converge()
        check(site)
        site.now += D / 2


def act(site: Site, step: Act) -> None:
    match step.kind:
        case "pass":
            site.converge()
        case "force":
            site.converge(force=True)
        case "crash":
            site.crash(step.at)
        case "overtaken":
            site.overtaken(step.at, lambda: others(site, passes=1))
        case "frozen":
            # For longer than it takes until everybody has read what the other process wrote.
            site.overtaken(step.at, lambda: others(site, passes=4))


def installed(age: float = 0.2, wanted: Wanted = WANTED) -> Site:
    """All was issued long ago, in parts of an authority's life, and is well known."""
    return copy.deepcopy(_installed(age, wanted))


@cache
def _installed(age: float, wanted: Wanted) -> Site:
    site = Site(wanted, START)
    while site.now < START + age * wanted.lifetimes.authority:
        site.converge()
        site.now += D / 2
    site.converge()
    return site


def live(site: Site, steps: list[Act]) -> None:
    full = site.now
    for step in steps:
        site.now += step.wait * D
        act(site, step)
        if step.kind in ("pass", "force", "frozen", "overtaken"):
            full = site.now
        if site.now - full > D / 2:
            site.converge()
            full = site.now
        check(site)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([0.2, 0.6, 0.75, 0.9, 1.4]), acts)
def test_everybody_is_believed_at_every_moment(age: float, steps: list[Act]) -> None:
    site = installed(age)

    live(site, steps)


def test_left_alone_the_authority_is_succeeded_again_and_again() -> None:
    """The same with nothing but time, so that many authorities come and go."""
    site = installed()
    steps = [Act(0.5, "pass", 1)] * 700

    live(site, steps)

    lifetimes = (site.now - START) / RULES.authority
    assert lifetimes > 8
    # Each is succeeded when it has lived 2/3 of its life.
    assert len(site.authorities) >= lifetimes
    trusted = list(site.held(CONFIGURATION, lag=timedelta(0)))[-1]["ca.crt"]
    assert trusted.count(b"BEGIN CERTIFICATE") <= 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([0.2, 0.5, 0.8, 1.2]), acts)
def test_the_shortest_lifetimes_leave_time_enough_for_all_who_read_again(
    age: float, steps: list[Act]
) -> None:
    site = installed(age, dataclasses.replace(WANTED, lifetimes=TIGHT))
    site.patient = False

    live(site, steps)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([0.2, 0.7, 0.9]),
    acts,
    st.sampled_from(["gpudetour-ca", "gpudetour-webhook-tls", "gpudetour-scheduler-client"]),
)
def test_a_secret_that_is_lost_costs_nobody_its_trust(
    age: float, steps: list[Act], lost: str
) -> None:
    site = installed(age)
    live(site, steps)
    # Settled: what the process did not come to do is done.
    site.converge()

    del site.objects.stored[f"/api/v1/namespaces/gpudetour-system/secrets/{lost}"]

    # With the authority's key the time in which its successor could become known is lost too.
    site.patient = False
    live(site, [Act(0.3, "pass", 1)] * 40)
    again = site.converge()
    assert Why.WAITING not in [outcome.why for outcome in again.issued.outcomes]

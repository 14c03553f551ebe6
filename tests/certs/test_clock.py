"""Certificates are made by the API server's clock where ours is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from structlog.testing import capture_logs

from certs.authority import examine, is_issued_by
from certs.clock import Clock
from certs.converge import converge
from certs.names import leaves
from certs.state import Why, usable
from certs.store import Store
from kube.client import BadAnswer, Client
from tests.certs.cluster import Direct, Objects
from tests.certs.making import DAY
from tests.certs.site import RULES, D, Wanted
from tests.fakes.api_server import Answer, FakeApiServer

NOW = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
HOUR = timedelta(hours=1)
WANTED = Wanted(names=leaves("gpudetour-system"))


def clock(wrong: timedelta) -> Clock:
    return Clock(ours=lambda: NOW + wrong, server=lambda: NOW.replace(microsecond=0))


@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(seconds=20), timedelta(seconds=-20)])
def test_a_clock_that_agrees_is_used(wrong: timedelta) -> None:
    with capture_logs() as records:
        assert clock(wrong).now() == NOW + wrong

    assert records == []


@pytest.mark.parametrize("wrong", [HOUR, -HOUR, 40 * DAY, -40 * DAY])
def test_a_clock_that_is_wrong_is_not_used_and_is_told_once(wrong: timedelta) -> None:
    one = clock(wrong)
    with capture_logs() as records:
        assert one.now() == one.now() == NOW.replace(microsecond=0)

    assert [record["seconds"] for record in records] == [round(wrong.total_seconds())]
    assert abs(one.ahead - wrong) < timedelta(seconds=1)


@pytest.mark.parametrize("wrong", [HOUR, -HOUR, 40 * DAY, -40 * DAY])
def test_a_process_with_a_wrong_clock_harms_nobody(wrong: timedelta) -> None:
    """Neither what it finds nor what it makes itself, with lifetimes of minutes."""
    objects = Objects()
    objects.add_configuration("pods.gpudetour.io")
    store = Store(
        Direct(objects, lambda _: None), namespace="gpudetour-system", configuration="gpudetour"
    )
    right = NOW.replace(microsecond=0)
    converge(store, WANTED, now=right)
    found = converge(store, WANTED, now=clock(wrong).now())
    del objects.stored["/api/v1/namespaces/gpudetour-system/secrets/gpudetour-webhook-tls"]
    made = converge(store, WANTED, now=clock(wrong).now())

    assert [outcome.why for outcome in found.issued.outcomes] == [Why.KEPT] * 4
    leaf = usable(objects.data("gpudetour-webhook-tls"), now=right)
    assert leaf is not None
    facts = examine(leaf.pair)
    assert facts.not_before <= right
    assert right + RULES.server - D <= facts.not_after <= right + RULES.server + D
    assert is_issued_by(leaf.pair.certificate, objects.data("gpudetour-ca")["tls.crt"])
    assert made.changed


def test_the_time_is_that_of_the_answer() -> None:
    told = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    answer = Answer(headers={"Date": format_datetime(told, usegmt=True)})
    with FakeApiServer(lambda _: answer) as api:
        assert Client(api.connection()).server_time() == told


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Nov 2026 12:00:00 GMT"])
def test_an_answer_without_a_time_is_an_error(date: str) -> None:
    with (
        FakeApiServer(lambda _: Answer(headers={"Date": date})) as api,
        pytest.raises(BadAnswer, match="no usable Date"),
    ):
        Client(api.connection()).server_time()

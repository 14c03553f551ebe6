"""`python -m webhook` among peers that hold connections open and bring nothing."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator

import pytest

from certs.authority import KeyPair
from localcluster.bench.wire import Wire
from localcluster.waiting import until
from service.arrivals import HANDSHAKE_TIMEOUT, REQUEST_TIMEOUT
from tests.certs.making import Mounted, authority, server
from tests.fakes.api_server import FakeApiServer
from tests.service.calling import client_context
from tests.service.process import Process
from tests.service.siege import (
    CLOSING,
    MEBI,
    SLACK,
    attack,
    bearable,
    open_files,
    p99,
    resident,
    served,
    worker,
)
from tests.webhook.reviews import pod, review
from tests.webhook.test_webhook_process import listing, webhook

#: What the shipped manifest lets a webhook have.
MEMORY = 256 * MEBI
#: Connections to the API server, which come and go.
OTHERS = 8
BODY = json.dumps(review(pod())).encode()


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return authority()


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, ca: KeyPair) -> Mounted:
    files = Mounted(tmp_path_factory.mktemp("tls") / "tls")
    files.put(server(ca), trusted=ca.certificate)
    return files


@pytest.fixture
def serving(mounted: Mounted) -> Iterator[Process]:
    with FakeApiServer(listing) as api, webhook(mounted, api.url) as process:
        api.wait_for_requests(2)
        yield process


def ask(wire: Wire) -> None:
    status, answer = wire.ask("POST /mutate", BODY)
    assert status == 200, answer
    assert json.loads(answer)["response"]["allowed"] is True


def test_every_admission_is_answered_among_1500_connections_that_bring_nothing(
    serving: Process, mounted: Mounted, ca: KeyPair
) -> None:
    context, port, pid = client_context(ca.certificate), serving.port(), worker(serving)
    calm = served(port, context, ask, times=20)
    before = open_files(pid)
    with attack(port, ca_file=mounted.ca_file) as attackers:
        took = served(port, context, ask, times=200)
        memory, files = resident(pid), open_files(pid)
        attackers.terminate()
        over = attackers.wait_for("all are closed", within=CLOSING)

    assert p99(took) < bearable(calm)
    # On a busy machine they come to open less again than is closed.
    assert over["most"] > 750
    assert memory < MEMORY
    assert files < 2000
    assert over["seconds"] < HANDSHAKE_TIMEOUT + REQUEST_TIMEOUT + SLACK
    until(lambda: open_files(pid) <= before + OTHERS, timeout=SLACK, what="their files closed")
    assert [r for r in serving.records if r.get("level") == "error"] == []


def test_with_more_attackers_than_places_admissions_go_on(
    serving: Process, mounted: Mounted, ca: KeyPair
) -> None:
    context, port, pid = client_context(ca.certificate), serving.port(), worker(serving)
    calm = served(port, context, ask, times=20)
    numbers = {"silent": 900, "partial hello": 900, "slow": 900}
    with attack(port, ca_file=mounted.ca_file, numbers=numbers):
        took = served(port, context, ask, times=200)
        memory, files = resident(pid), open_files(pid)

    assert p99(took) < bearable(calm)
    assert memory < MEMORY
    assert files < 2000


def test_where_no_more_files_may_be_opened_admissions_go_on(
    serving: Process, mounted: Mounted, ca: KeyPair
) -> None:
    port, pid = serving.port(), worker(serving)
    context = client_context(ca.certificate)
    served(port, context, ask, times=1)
    most = open_files(pid) + 40
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    with attack(port, ca_file=mounted.ca_file, numbers={"silent": 60}):
        serving.wait_for("fewer connections than wanted")
        served(port, context, ask, times=20)

    assert serving.popen.poll() is None

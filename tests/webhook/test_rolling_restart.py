"""Two replicas are replaced one after the other under load, and no admission is lost."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus

import pytest
import urllib3

from certs.authority import KeyPair
from localcluster.bench.wire import Wire, dial
from localcluster.waiting import until
from tests.certs.making import Mounted, authority, server
from tests.fakes.api_server import FakeApiServer
from tests.service.calling import client_context
from tests.service.process import Process
from tests.webhook.reviews import pod, review
from tests.webhook.test_webhook_process import listing, webhook

BODY = json.dumps(review(pod())).encode()
REQUEST = (
    b"POST /mutate HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
#: Callers with a connection each, and admissions that each must have got before and after a step.
CALLERS = 6
ENOUGH = 30
#: Seconds; for draining as long as is the default.
DRAIN = "5"
PATIENCE = 60.0


class Endpoints:
    """The replicas that are ready, seen as kube-proxy sees them: soon, not at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the next two
        self._replicas: list[Process] = []
        self._turn = itertools.count()
        self._stop = threading.Event()
        self._ready: list[int] = []

    def add(self, replica: Process) -> None:
        with self._lock:
            self._replicas.append(replica)
        until(lambda: replica.port() in self._ready, timeout=PATIENCE, what="a replica ready")

    def pick(self) -> int:
        ready = until(lambda: self._ready, timeout=PATIENCE, what="any replica ready")
        return ready[next(self._turn) % len(ready)]

    def follow(self) -> None:
        with urllib3.PoolManager(retries=False, timeout=5.0) as pool:
            while not self._stop.wait(0.1):
                with self._lock:
                    replicas = list(self._replicas)
                self._ready = [replica.port() for replica in replicas if is_ready(pool, replica)]

    @contextmanager
    def followed(self) -> Iterator[None]:
        thread = threading.Thread(target=self.follow)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


class Caller:
    """Asks on a kept connection without a pause, and on another one when told to close it."""

    def __init__(self, pick: Callable[[], int], context: ssl.SSLContext) -> None:
        self._pick = pick
        self._context = context
        self.admitted = 0
        self.failed: list[str] = []

    def run(self, stop: threading.Event) -> None:
        wire: Wire | None = None
        while not stop.is_set():
            try:
                wire = wire or dial(f"https://127.0.0.1:{self._pick()}", self._context)
                wire.write(REQUEST)
                head, answer = wire.read()
                assert b" 200 " in head.partition(b"\r\n")[0], head
                assert json.loads(answer)["response"]["allowed"] is True
                self.admitted += 1
                told_to_close = b"connection: close" in head.lower()
            except (OSError, AssertionError) as error:
                self.failed.append(repr(error))
                told_to_close = True
            if wire is not None and told_to_close:
                wire.close()
                wire = None
        if wire is not None:
            wire.close()


def is_ready(pool: urllib3.PoolManager, replica: Process) -> bool:
    port = replica.port("health and metrics")
    try:
        status: int = pool.request("GET", f"http://127.0.0.1:{port}/readyz").status
    except urllib3.exceptions.HTTPError:
        return False
    return status == HTTPStatus.OK


@contextmanager
def calling(callers: list[Caller]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=caller.run, args=(stop,)) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def more_admitted(callers: list[Caller]) -> None:
    """Return when every caller got so many more admissions."""
    before = [caller.admitted for caller in callers]
    until(
        lambda: all(c.admitted >= b + ENOUGH for c, b in zip(callers, before, strict=True)),
        timeout=PATIENCE,
        what="more admissions",
    )


@pytest.fixture
def ca() -> KeyPair:
    return authority()


def test_no_admission_is_lost_while_replicas_are_replaced(
    tmp_path_factory: pytest.TempPathFactory, ca: KeyPair
) -> None:
    mounted = Mounted(tmp_path_factory.mktemp("tls") / "tls")
    mounted.put(server(ca))
    endpoints = Endpoints()
    context = client_context(ca.certificate)
    callers = [Caller(endpoints.pick, context) for _ in range(CALLERS)]
    with FakeApiServer(listing) as api, ExitStack() as stack:

        def start() -> Process:
            replica = stack.enter_context(webhook(mounted, api.url, "--drain", DRAIN))
            endpoints.add(replica)
            return replica

        stack.enter_context(endpoints.followed())
        replicas = [start(), start()]
        with calling(callers):
            for replica in replicas:
                more_admitted(callers)
                replica.terminate()
                assert replica.exit_code() == 0
                more_admitted(callers)
                start()
            more_admitted(callers)

    assert [failure for caller in callers for failure in caller.failed] == []

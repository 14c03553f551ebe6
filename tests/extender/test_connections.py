"""Which answers to binds wait, so that kube-scheduler keeps its connections."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from extender.connections import Connections

LONG = 30.0
#: Seconds; not too few for a busy machine.
PATIENCE = 3.0
HERE, THERE = "127.0.0.1", "127.0.0.2"


class Peer:
    """One connection to the application, known to it by a first filter; one bind at a time."""

    def __init__(self, app: WSGIApplication, server_side: socket.socket, address: str) -> None:
        self._app = app
        self._sock = server_side
        self._address = address
        self._work = threading.Event()
        self._answers: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.ask("/filter")

    def ask(self, path: str) -> None:
        environ: WSGIEnvironment = {
            "PATH_INFO": path,
            "REMOTE_ADDR": self._address,
            "gunicorn.socket": self._sock,
            "work": self._work,
        }
        list(self._app(environ, lambda *_: lambda _: None))

    def begin_bind(self, begun: threading.Semaphore) -> threading.Thread:
        """Return when the application is at work on a bind."""

        def bind() -> None:
            self.ask("/bind")
            self._answers.put(time.monotonic())

        thread = threading.Thread(target=bind)
        thread.start()
        assert begun.acquire(timeout=LONG)
        return thread

    def end_work(self) -> None:
        self._work.set()

    def answered(self) -> float:
        """Return when the answer to the bind came."""
        return self._answers.get(timeout=LONG)

    def close(self) -> None:
        self._sock.close()


class Site:
    """Peers of one application; every bind is worked on until it is told to end."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._begun = threading.Semaphore(0)
        self._ended = threading.Semaphore(0)
        self._app = Connections(patience=PATIENCE).over(self._serve)
        self._threads: list[threading.Thread] = []

    def _serve(self, environ: WSGIEnvironment, _start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/bind":
            self._begun.release()
            assert environ["work"].wait(LONG)
            self._ended.release()
        return []

    def peers(self, count: int, address: str = HERE) -> list[Peer]:
        """Open connections."""
        found = []
        for _ in range(count):
            client, server = socket.socketpair()
            self._opened.enter_context(client)
            self._opened.enter_context(server)
            found.append(Peer(self._app, server, address))
        return found

    def bind(self, *peers: Peer) -> None:
        """Let the application begin a bind for each."""
        self._threads += [peer.begin_bind(self._begun) for peer in peers]

    def end(self, *peers: Peer) -> float:
        """Let the binds end, whose answers may wait; return when that was."""
        for peer in peers:
            peer.end_work()
            assert self._ended.acquire(timeout=LONG)
        return time.monotonic()

    def close(self) -> None:
        """Wait for all answers."""
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive()
        self._opened.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


def test_with_two_connections_no_answer_waits(site: Site) -> None:
    _, busy = site.peers(2)
    site.bind(busy)

    ended = site.end(busy)

    assert busy.answered() - ended < PATIENCE


def test_with_two_idle_an_answer_waits_for_a_while(site: Site) -> None:
    _, _, busy = site.peers(3)
    site.bind(busy)

    ended = site.end(busy)

    assert busy.answered() - ended > PATIENCE / 2


def test_an_answer_goes_when_an_idle_one_is_taken(site: Site) -> None:
    first, _, busy = site.peers(3)
    site.bind(busy)
    ended = site.end(busy)

    site.bind(first)

    assert busy.answered() - ended < PATIENCE
    site.end(first)


def test_each_that_is_taken_lets_one_answer_go(site: Site) -> None:
    first, _, *busy = site.peers(4)
    site.bind(*busy)
    ended = site.end(*busy)

    site.bind(first)

    waits = sorted(peer.answered() - ended for peer in busy)
    assert waits[0] < PATIENCE / 2 < waits[1]
    site.end(first)


@pytest.mark.parametrize("why", ["closed", "of another peer"])
def test_other_connections_do_not_count(site: Site, why: str) -> None:
    _, busy = site.peers(2)
    for other in site.peers(3, THERE if why == "of another peer" else HERE):
        if why == "closed":
            other.close()
    site.bind(busy)

    ended = site.end(busy)

    assert busy.answered() - ended < PATIENCE


def test_only_few_answers_wait(site: Site) -> None:
    _, _, *busy = site.peers(8)
    site.bind(*busy)

    ended = site.end(*busy)

    assert sum(peer.answered() - ended > PATIENCE / 2 for peer in busy) == 4

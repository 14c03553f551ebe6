"""Who may call the served extender, and what others can do to those who may: nothing."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3

from certs.authority import KeyPair, Subject, Usage, issue
from tests.builders import pod
from tests.certs.making import DAY, authority, client
from tests.extender.port import SCHEDULER, args, binding
from tests.extender.served import Served, SmallCluster, served
from tests.fakes.api_server import Fault, Reply, Request
from tests.service.calling import post

#: What kube-scheduler's configuration gives one call.
HTTP_TIMEOUT = 2.0
#: Peers that do as they like, all at once.
CROWD = 200
PARTIAL_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
VERBS = ("filter", "prioritize", "bind", "preempt")


@pytest.fixture(scope="module")
def ca() -> KeyPair:
    return authority()


@pytest.fixture(scope="module")
def api() -> Iterator[SmallCluster]:
    with SmallCluster(pod("p").wants(gpus=1)) as api:
        yield api


@pytest.fixture(scope="module")
def extender(
    tmp_path_factory: pytest.TempPathFactory, api: SmallCluster, ca: KeyPair
) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("extender"), api=api, ca=ca) as extender:
        yield extender


def ask(extender: Served, context: ssl.SSLContext) -> Any:
    """Call filter on a connection of its own and return the decoded answer."""
    response = post(extender.port, context, json.dumps(args("a", "b")).encode(), path="/filter")
    assert response.status == 200
    return json.loads(response.data)


# Who may call


def test_the_schedulers_certificate_is_answered(extender: Served, ca: KeyPair) -> None:
    answer = ask(extender, extender.context(client(ca, name=SCHEDULER)))

    assert answer["NodeNames"] in (["a"], ["b"])


def other_name(ca: KeyPair) -> KeyPair:
    return client(ca, name="system:kube-scheduler")


def name_beside_the_subject(ca: KeyPair) -> KeyPair:
    subject = Subject(common_name="other", usage=Usage.CLIENT, hosts=frozenset({SCHEDULER}))
    return issue(ca, subject, now=datetime.now(UTC), lifetime=DAY)


def expired(ca: KeyPair) -> KeyPair:
    subject = Subject(common_name=SCHEDULER, usage=Usage.CLIENT)
    return issue(ca, subject, now=datetime.now(UTC) - 10 * DAY, lifetime=DAY)


def not_yet_valid(ca: KeyPair) -> KeyPair:
    subject = Subject(common_name=SCHEDULER, usage=Usage.CLIENT)
    return issue(ca, subject, now=datetime.now(UTC) + 10 * DAY, lifetime=DAY)


def of_another_authority(_ca: KeyPair) -> KeyPair:
    return client(authority(), name=SCHEDULER)


def of_a_server(ca: KeyPair) -> KeyPair:
    subject = Subject(common_name=SCHEDULER, usage=Usage.SERVER, hosts=frozenset({"localhost"}))
    return issue(ca, subject, now=datetime.now(UTC), lifetime=DAY)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("certificate", [other_name, name_beside_the_subject])
def test_another_common_name_is_told_which_one_may_call(
    extender: Served,
    api: SmallCluster,
    certificate: Callable[[KeyPair], KeyPair],
    verb: str,
) -> None:
    body = json.dumps(binding("a") if verb == "bind" else args("a")).encode()

    response = post(
        extender.port, extender.context(certificate(extender.ca)), body, path=f"/{verb}"
    )

    assert response.status == 403
    assert SCHEDULER.encode() in response.data
    assert "nodeName" not in api.pods["default/p"]["spec"]


@pytest.mark.parametrize(
    "certificate",
    [None, expired, not_yet_valid, of_another_authority, of_a_server],
    ids=lambda made: getattr(made, "__name__", "none"),
)
def test_without_a_valid_certificate_there_is_no_connection(
    extender: Served, certificate: Callable[[KeyPair], KeyPair] | None
) -> None:
    context = extender.context(certificate(extender.ca) if certificate is not None else None)

    with pytest.raises(urllib3.exceptions.HTTPError):
        ask(extender, context)


# Which port serves what


def test_health_and_metrics_are_on_their_own_port_alone(extender: Served, ca: KeyPair) -> None:
    context = extender.context(client(ca, name=SCHEDULER))
    with (
        urllib3.PoolManager(retries=False, timeout=10) as plain,
        urllib3.PoolManager(ssl_context=context, retries=False, timeout=10) as secure,
    ):

        def statuses(pool: urllib3.PoolManager, url: str, method: str, *paths: str) -> list[int]:
            return [pool.request(method, f"{url}/{path}").status for path in paths]

        health = ("healthz", "readyz", "metrics")
        side, main = f"http://127.0.0.1:{extender.side_port}", f"https://127.0.0.1:{extender.port}"
        assert statuses(plain, side, "GET", *health) == [200, 200, 200]
        assert statuses(secure, main, "GET", *health) == [404, 404, 404]
        others = (*VERBS, "", "debug", "healthz/x", "%2e%2e/metrics")
        assert set(statuses(plain, side, "GET", *others)) == {404}
        # BaseHTTPRequestHandler's word for methods that it was not given.
        assert set(statuses(plain, side, "POST", *VERBS, *health)) == {501}


# Sizes


def test_a_body_over_the_limit_is_refused_before_it_is_read(extender: Served, ca: KeyPair) -> None:
    with connection(extender, client(ca, name=SCHEDULER)) as peer:
        peer.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nContent-Length: 17000000\r\n\r\n")
        answer = read_all(peer)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 16777216 bytes" in answer


def test_a_body_of_untold_size_is_refused(extender: Served, ca: KeyPair) -> None:
    with connection(extender, client(ca, name=SCHEDULER)) as peer:
        peer.sendall(b"POST /filter HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answer = read_all(peer)

    assert answer.startswith(b"HTTP/1.1 411 ")


# Time


class Crowd:
    """Peers with a certificate of ours but the wrong name, which is more than any stranger has."""

    def __init__(self, extender: Served, stack: ExitStack) -> None:
        self._address = ("127.0.0.1", extender.port)
        self._context = extender.context(other_name(extender.ca))
        self._stack = stack

    def plain(self, first: bytes) -> list[socket.socket]:
        peers = [self._stack.enter_context(self._connect()) for _ in range(CROWD)]
        for peer in peers:
            peer.sendall(first)
        return peers

    def secured(self, first: bytes) -> list[socket.socket]:
        def one(_number: int) -> socket.socket:
            return self._context.wrap_socket(self._connect(), server_hostname="127.0.0.1")

        with ThreadPoolExecutor(8) as pool:
            peers = [self._stack.enter_context(peer) for peer in pool.map(one, range(CROWD))]
        for peer in peers:
            peer.sendall(first)
        return list(peers)

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=30)


HEAD = b"POST /filter HTTP/1.1\r\nHost: x\r\n"
CROWDS: dict[str, Callable[[Crowd], list[socket.socket]]] = {
    "connections that say nothing": lambda crowd: crowd.plain(b""),
    "handshakes that stop half way": lambda crowd: crowd.plain(PARTIAL_HELLO),
    "connections that are idle": lambda crowd: crowd.secured(b""),
    "headers that do not end": lambda crowd: crowd.secured(HEAD),
    "bodies that do not end": lambda crowd: crowd.secured(HEAD + b"Content-Length: 99999\r\n\r\nx"),
}


@pytest.mark.parametrize("kind", CROWDS)
def test_a_crowd_of_slow_peers_does_not_keep_the_scheduler_waiting(
    extender: Served, ca: KeyPair, kind: str
) -> None:
    context = extender.context(client(ca, name=SCHEDULER))
    body = json.dumps(args("a", "b")).encode()
    url = f"https://127.0.0.1:{extender.port}/filter"
    with (
        ExitStack() as stack,
        urllib3.PoolManager(ssl_context=context, retries=False, timeout=HTTP_TIMEOUT) as kept_alive,
    ):
        assert kept_alive.request("POST", url, body=body).status == 200
        peers = CROWDS[kind](Crowd(extender, stack))
        for _ in range(5):
            assert kept_alive.request("POST", url, body=body).status == 200
            with urllib3.PoolManager(
                ssl_context=context, retries=False, timeout=HTTP_TIMEOUT
            ) as fresh:
                assert fresh.request("POST", url, body=body).status == 200
            if kind.endswith("do not end"):
                for peer in peers:
                    with suppress(OSError):  # given up in the meantime
                        peer.sendall(b"x")


def test_a_request_that_does_not_end_is_given_up_in_time(extender: Served, ca: KeyPair) -> None:
    with connection(extender, client(ca, name=SCHEDULER)) as peer:
        started = time.monotonic()
        peer.sendall(HEAD)

        assert read_all(peer) == b""
        assert time.monotonic() - started < 15


# Work that does not end


def test_binds_that_hang_leave_threads_for_filter(tmp_path: Path, ca: KeyPair) -> None:
    hanging = threading.Semaphore(0)

    def hang(request: Request, proceed: Callable[[], Reply]) -> Reply:
        if not request.path.endswith("/binding"):
            return proceed()
        hanging.release()
        return Fault.HANG

    names = [f"p{number}" for number in range(4)]
    with SmallCluster(*(pod(name) for name in names)) as api:
        api.trouble = hang
        with (
            served(
                tmp_path, api=api, ca=ca, options=("--threads=4", "--api-timeout=5")
            ) as extender,
            ThreadPoolExecutor() as pool,
        ):
            context = extender.context(client(ca, name=SCHEDULER))

            def bind(name: str) -> str:
                body = {**binding("a"), "PodName": name, "PodUID": f"uid-{name}"}
                data = json.dumps(body).encode()
                error: str = json.loads(post(extender.port, context, data, path="/bind").data)[
                    "Error"
                ]
                return error

            binds = [pool.submit(bind, name) for name in names[:3]]
            for _ in binds:
                assert hanging.acquire(timeout=10)
            started = time.monotonic()
            assert "too many binds" in bind(names[3])
            assert ask(extender, context)["NodeNames"]
            assert time.monotonic() - started < HTTP_TIMEOUT
            assert all("not known" in future.result() for future in binds)


def connection(extender: Served, certificate: KeyPair) -> ssl.SSLSocket:
    """Open a connection and finish the handshake; reading is limited in time."""
    raw = socket.create_connection(("127.0.0.1", extender.port), timeout=30)
    return extender.context(certificate).wrap_socket(raw, server_hostname="127.0.0.1")


def read_all(peer: ssl.SSLSocket) -> bytes:
    """Read until the server closes the connection."""
    received = b""
    while piece := peer.recv(4096):
        received += piece
    return received

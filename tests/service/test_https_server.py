"""A real process serves HTTPS through gunicorn, and real clients call it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import urllib3

from certs.authority import KeyPair
from service.arrivals import HANDSHAKE_TIMEOUT
from service.crowd import CONNECTIONS
from service.tls import ANSWER_TIMEOUT
from tests.certs.making import Mounted, authority, client, server
from tests.service.attackers import PARTIAL_HELLO
from tests.service.calling import client_context, post, served_certificate
from tests.service.process import Process, running

#: Bytes of an answer that no buffer of the system holds.
LARGE = 7_000_000


@pytest.fixture
def ca() -> KeyPair:
    return authority()


@pytest.fixture
def mounted(tmp_path: Path, ca: KeyPair) -> Mounted:
    files = Mounted(tmp_path / "tls")
    files.put(server(ca), trusted=ca.certificate)
    return files


@contextmanager
def echo(mounted: Mounted, **options: object) -> Iterator[Process]:
    files = {"cert_file": mounted.cert_file, "key_file": mounted.key_file}
    with running("tests.service.echo", json.dumps({**files, "drain": 0.0, **options})) as process:
        yield process


def test_requests_are_answered_over_https(mounted: Mounted, ca: KeyPair) -> None:
    with echo(mounted) as process:
        response = post(process.port(), client_context(ca.certificate), b"hello")

    assert (response.status, response.data) == (200, b"hello")
    assert response.headers["Caller"] == "nobody"


def test_a_body_over_the_limit_is_refused_and_the_server_goes_on(
    mounted: Mounted, ca: KeyPair
) -> None:
    with echo(mounted, max_body=100) as process:
        context = client_context(ca.certificate)
        statuses = [post(process.port(), context, b"x" * size).status for size in (100, 101, 99)]

    assert statuses == [200, 413, 200]


def test_a_body_of_untold_size_is_refused(mounted: Mounted, ca: KeyPair) -> None:
    with (
        echo(mounted) as process,
        urllib3.PoolManager(ssl_context=client_context(ca.certificate), retries=False) as pool,
    ):
        response = pool.request(
            "POST", f"https://127.0.0.1:{process.port()}/", body=iter([b"a"]), chunked=True
        )

    assert (response.status, response.data) == (411, b"send a Content-Length\n")


def test_peers_that_stall_in_the_handshake_hold_up_nobody(mounted: Mounted, ca: KeyPair) -> None:
    with echo(mounted, threads=2) as process, ExitStack() as stack:
        peers = [stack.enter_context(connected(process)) for _ in range(40)]
        for peer in peers[::2]:
            peer.sendall(PARTIAL_HELLO)
        started = time.monotonic()
        response = post(process.port(), client_context(ca.certificate))
        took = time.monotonic() - started

        assert response.status == 200
        assert took < HANDSHAKE_TIMEOUT / 2
        # Each is closed when its own time is over, and none waits for another.
        for peer in peers:
            assert peer.recv(1) == b""
        assert time.monotonic() - started < 2 * HANDSHAKE_TIMEOUT


def test_with_too_many_connections_the_one_that_waits_longest_is_closed(
    mounted: Mounted, ca: KeyPair
) -> None:
    with echo(mounted, threads=2) as process, ExitStack() as stack:
        peers = []
        for _ in range(CONNECTIONS + 50):
            peers.append(stack.enter_context(connected(process)))
            peers[-1].sendall(PARTIAL_HELLO)
        response = post(process.port(), client_context(ca.certificate))

        assert response.status == 200
        assert peers[0].recv(1) == b""


def test_peers_that_take_no_answers_hold_up_nobody(mounted: Mounted, ca: KeyPair) -> None:
    context = client_context(ca.certificate)
    with echo(mounted, threads=4) as process, ExitStack() as stack:
        for _ in range(6):
            peer = stack.enter_context(reading_nothing(process, context))
            peer.sendall(request(b"a"))
            assert peer.recv(1)
            peer.sendall(request(b"a" * LARGE))
        process.wait_for("peer takes no answer", error="too many such peers")
        started = time.monotonic()
        response = post(process.port(), context)

        assert response.status == 200
        assert time.monotonic() - started < ANSWER_TIMEOUT / 2


def request(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@contextmanager
def reading_nothing(process: Process, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A connection whose end here has place for little."""
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(20)
        raw.connect(("127.0.0.1", process.port()))
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as peer:
            yield peer


@contextmanager
def connected(process: Process) -> Iterator[socket.socket]:
    """A plain connection that says nothing by itself; reading is limited in time."""
    with socket.create_connection(("127.0.0.1", process.port()), timeout=20) as peer:
        yield peer


def test_plain_http_and_garbage_hurt_nobody_else(mounted: Mounted, ca: KeyPair) -> None:
    with echo(mounted, threads=1) as process:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\x16\x03\x01\xff\xff" + b"a" * 80):
            with socket.create_connection(("127.0.0.1", process.port())) as peer:
                peer.sendall(garbage)
        response = post(process.port(), client_context(ca.certificate))
        errors = [r for r in process.records if r.get("level") == "error"]

    assert response.status == 200
    assert errors == []


def test_a_renewed_certificate_is_served_without_a_restart(mounted: Mounted, ca: KeyPair) -> None:
    with echo(mounted) as process:
        context = client_context(ca.certificate)
        before = served_certificate(process.port(), context)
        renewed = server(ca)
        mounted.put(renewed, trusted=ca.certificate)
        after = served_certificate(process.port(), context)

    assert before != after
    assert after == renewed.certificate.decode()


def test_only_clients_of_the_present_client_authority_are_served(
    mounted: Mounted, ca: KeyPair, tmp_path: Path
) -> None:
    other = authority()
    contexts = {}
    for name, issuer in (("scheduler", ca), ("stranger", other)):
        files = Mounted(tmp_path / name)
        files.put(client(issuer, name=name))
        contexts[name] = client_context(
            ca.certificate, cert_file=files.cert_file, key_file=files.key_file
        )
    nobody = client_context(ca.certificate)

    with echo(mounted, client_ca_file=mounted.ca_file) as process:
        port = process.port()
        assert post(port, contexts["scheduler"]).headers["Caller"] == "scheduler"
        for refused in (contexts["stranger"], nobody):
            with pytest.raises(urllib3.exceptions.HTTPError):
                post(port, refused)

        mounted.put(server(ca), trusted=other.certificate)
        assert post(port, contexts["stranger"]).headers["Caller"] == "stranger"
        with pytest.raises(urllib3.exceptions.HTTPError):
            post(port, contexts["scheduler"])


def test_after_sigterm_requests_are_served_and_connections_closed(
    mounted: Mounted, ca: KeyPair
) -> None:
    with (
        echo(mounted, drain=8.0) as process,
        urllib3.PoolManager(ssl_context=client_context(ca.certificate), retries=False) as pool,
    ):
        url = f"https://127.0.0.1:{process.port()}/"
        before = pool.request("POST", url, body=b"1")
        process.terminate()
        process.wait_for("told to drain")
        during = pool.request("POST", url, body=b"2")

        assert process.exit_code() == 0

    process.wait_for("stopped")
    assert (before.headers["Connection"], during.headers["Connection"]) == ("keep-alive", "close")
    assert during.data == b"2"


def test_a_silent_connection_does_not_hold_up_the_end(mounted: Mounted) -> None:
    with (
        echo(mounted, graceful=1) as process,
        socket.create_connection(("127.0.0.1", process.port())),
    ):
        process.wait_for("started")
        process.terminate()

        assert process.exit_code() == 0
        process.wait_for("stopped")


def test_a_thread_that_ends_early_ends_the_process(mounted: Mounted) -> None:
    with echo(mounted, thread_ends_early=True) as process:
        assert process.exit_code() == 1

    process.wait_for("thread ended without being asked to", thread="work")


def test_a_stuck_request_ends_the_process_and_the_log_tells_where(
    mounted: Mounted, ca: KeyPair
) -> None:
    with echo(mounted) as process:
        context = client_context(ca.certificate)
        with pytest.raises(urllib3.exceptions.HTTPError):
            post(process.port(), context, path="/stuck")

        assert process.exit_code() == 1

    told = process.wait_for("a request is stuck, ending the process", request="stuck")
    assert "in app\n    threading.Event().wait()" in told["stack"]


def test_signals_that_would_change_the_number_of_workers_are_ignored(
    mounted: Mounted, ca: KeyPair
) -> None:
    with echo(mounted) as process:
        port = process.port()
        process.wait_for("started")
        for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR2):
            process.popen.send_signal(number)

        assert post(port, client_context(ca.certificate)).status == 200
        assert len([r for r in process.records if r.get("event") == "started"]) == 1

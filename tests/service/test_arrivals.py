"""A request takes a thread's time only when it has arrived whole, and peers have only so long."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.arrivals import (
    HANDSHAKE_TIMEOUT,
    REQUEST_TIMEOUT,
    Peer,
    Progress,
    Room,
)
from service.tls import FollowingContext
from tests.certs.making import Mounted, authority, server

IDLE = 120.0
MAX_BODY = 600_000


class Connection:
    """A server's end of a connection, and a client that does as it is told."""

    def __init__(self, context: Callable[[], ssl.SSLContext], room: Room | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.theirs: socket.socket = theirs
        ours.setblocking(False)

        def secure(raw: socket.socket) -> ssl.SSLSocket:
            return context().wrap_socket(raw, server_side=True, do_handshake_on_connect=False)

        rooms = (room or Room(1_000_000), Room(1_000_000))
        self.peer = Peer(ours, secure=secure, rooms=rooms, max_body=MAX_BODY, idle=IDLE)

    def shake_hands(self) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = context.wrap_socket(self.theirs, do_handshake_on_connect=False)
        shaking = threading.Thread(target=client.do_handshake)
        shaking.start()
        while shaking.is_alive():
            assert self.peer.gather() is Progress.WAITING
        assert self.peer.gather() is Progress.WAITING
        self.theirs = client
        return client

    def has(self, seconds: float, *, since: float) -> bool:
        """Tell whether it would be closed so long after a moment between `since` and now."""
        slack = 1e-6
        latest = time.monotonic() + seconds
        return since + seconds - slack <= self.peer.deadline <= latest + slack

    def close(self) -> None:
        self.peer.sock.close()
        self.theirs.close()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> FollowingContext:
    files = Mounted(tmp_path_factory.mktemp("tls"))
    files.put(server(authority()))
    return FollowingContext(cert_file=files.cert_file, key_file=files.key_file)


@pytest.fixture
def connect(context: FollowingContext) -> Iterator[Callable[..., Connection]]:
    with ExitStack() as stack:

        def connect(room: Room | None = None) -> Connection:
            connection = Connection(context, room)
            stack.callback(connection.close)
            return connection

        yield connect


def request(body: bytes = b"", *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST /filter HTTP/1.1", b"Host: h", *headers, length, b"", body])


def content(peer: Peer) -> bytes:
    return b"".join(peer.gathered.pieces)


def test_a_handshake_has_one_deadline_a_connection_may_idle_and_a_request_has_its_own(
    connect: Callable[..., Connection],
) -> None:
    begun = time.monotonic()
    connection = connect()
    assert connection.has(HANDSHAKE_TIMEOUT, since=begun)
    connection.theirs.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    deadline = connection.peer.deadline
    assert connection.peer.gather() is Progress.WAITING
    assert connection.peer.deadline == deadline

    connection = connect()
    begun = time.monotonic()
    client = connection.shake_hands()
    assert connection.has(IDLE, since=begun)
    client.sendall(b"P")
    begun = time.monotonic()
    assert connection.peer.gather() is Progress.WAITING
    assert connection.has(REQUEST_TIMEOUT, since=begun)
    deadline = connection.peer.deadline
    client.sendall(b"O")
    assert connection.peer.gather() is Progress.WAITING
    assert connection.peer.deadline == deadline  # the request's, not the byte's

    begun = time.monotonic()
    connection.peer.end()
    assert connection.has(IDLE, since=begun)


def test_a_request_is_whole_when_its_last_byte_is_there(connect: Callable[..., Connection]) -> None:
    connection = connect()
    client = connection.shake_hands()
    whole = request(b"x" * 100_000)
    for piece in (whole[:10], whole[10:200], whole[200:-1]):
        client.sendall(piece)
        assert connection.peer.gather() is Progress.WAITING
    client.sendall(whole[-1:])

    assert connection.peer.gather() is Progress.WHOLE
    assert content(connection.peer) == whole


def test_what_came_early_begins_the_next_request(connect: Callable[..., Connection]) -> None:
    connection = connect()
    client = connection.shake_hands()
    first, second = request(b"1"), request(b"2")
    client.sendall(first + second[:20])
    assert connection.peer.gather() is Progress.WHOLE
    assert connection.peer.gathered.read(len(first)) == first
    connection.peer.end()
    client.sendall(second[20:])

    assert connection.peer.gather() is Progress.WHOLE
    assert content(connection.peer) == second


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: %s\r\n\r\n" % (b"9" * 5000),
    ],
    ids=["too large", "size not told", "absurd"],
)
def test_a_body_that_will_be_refused_is_not_waited_for(
    connect: Callable[..., Connection], head: bytes
) -> None:
    connection = connect()
    client = connection.shake_hands()
    client.sendall(head)

    assert connection.peer.gather() is Progress.WHOLE


@pytest.mark.parametrize("bytes_", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64])
def test_whoever_speaks_no_tls_is_gone(connect: Callable[..., Connection], bytes_: bytes) -> None:
    connection = connect()
    connection.theirs.sendall(bytes_)

    assert connection.peer.gather() is Progress.GONE


def test_a_head_without_end_is_given_up(connect: Callable[..., Connection]) -> None:
    connection = connect()
    client = connection.shake_hands()
    sending = threading.Thread(target=client.sendall, args=(b"POST /" + b"a" * 100_000,))
    sending.start()
    while (progress := connection.peer.gather()) is Progress.WAITING:
        pass
    sending.join()

    assert progress is Progress.GONE


def test_the_end_of_the_stream_is_the_end(connect: Callable[..., Connection]) -> None:
    connection = connect()
    connection.shake_hands().close()

    assert connection.peer.gather() is Progress.GONE


def test_large_requests_share_their_room_and_small_ones_need_none(
    connect: Callable[..., Connection],
) -> None:
    room = Room(40_000)
    first, second, small = connect(room), connect(room), connect(room)
    large = request(b"x" * 500_000)

    def offer(connection: Connection, content: bytes) -> Progress:
        client = connection.shake_hands()
        client.sendall(content)
        return connection.peer.gather()

    assert offer(first, large[:50_000]) is Progress.WAITING
    assert offer(second, large[:50_000]) is Progress.GONE
    assert offer(small, request(b"x" * 10_000)) is Progress.WHOLE
    first.peer.end()
    assert offer(connect(room), large[:50_000]) is Progress.WAITING


def test_the_large_requests_of_strangers_take_no_room_from_others(
    connect: Callable[..., Connection],
) -> None:
    room = Room(40_000)
    served, stranger = connect(room), connect(room)
    client = served.shake_hands()
    client.sendall(request(b"1"))
    assert served.peer.gather() is Progress.WHOLE
    served.peer.served()
    stranger.shake_hands().sendall(request(b"x" * 100_000)[:50_000])
    assert stranger.peer.gather() is Progress.WAITING
    large = request(b"x" * 100_000)
    sending = threading.Thread(target=client.sendall, args=(large,))
    sending.start()
    while (progress := served.peer.gather()) is Progress.WAITING:
        pass
    sending.join()

    assert progress is Progress.WHOLE
    assert content(served.peer) == large


def test_a_silent_connection_has_no_tls_state(connect: Callable[..., Connection]) -> None:
    connection = connect()
    assert not isinstance(connection.peer.sock, ssl.SSLSocket)
    connection.theirs.sendall(b"\x16\x03\x01")
    assert connection.peer.gather() is Progress.WAITING
    assert isinstance(connection.peer.sock, ssl.SSLSocket)


@given(
    body=st.binary(max_size=300),
    cuts=st.lists(st.integers(min_value=1, max_value=400), max_size=6),
    name=st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]),
)
def test_wherever_a_request_is_cut_only_the_last_piece_makes_it_whole(
    context: FollowingContext, body: bytes, cuts: list[int], name: bytes
) -> None:
    whole = request(body).replace(b"Content-Length", name)
    at = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    pieces = [whole[start:end] for start, end in itertools.pairwise(at)]
    connection = Connection(context)
    connection.close()
    complete = []
    for piece in pieces:
        connection.peer._take(piece)
        complete.append(connection.peer._whole())

    assert complete == [*[False] * (len(pieces) - 1), True]
    assert content(connection.peer) == whole

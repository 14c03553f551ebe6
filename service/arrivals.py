"""Receiving requests without a thread: what slow, silent and hostile peers cost.

gunicorn's gthread worker lets a thread wait for what a peer sends, and its main loop for a peer to
close its end: a few silent peers stop it (gunicorn issue 2507). Here a thread works on a connection
only for moments in which its peer has sent something, and the application begins when the whole
request lies in memory. What a request says is not looked into, only where it ends.
"""

from __future__ import annotations

import errno
import re
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from enum import Enum, auto
from functools import partial
from typing import Any

import structlog
from gunicorn.http import get_parser
from gunicorn.http.unreader import Unreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.logs import ERROR

#: Seconds for the whole TLS handshake, and for the whole of a request after its first byte.
HANDSHAKE_TIMEOUT = 5.0
REQUEST_TIMEOUT = 10.0
#: Seconds for which a peer may close its end after its last answer, and bytes it may still send.
_LEAVE_TIMEOUT = 2.0
_LEAVE_BYTES = 64 * 1024
#: Seconds for which a thread waits for the next bytes: those of one request come close together.
_PATIENCE = 0.01
#: Seconds between looks for connections whose time is over.
_SWEEP = 0.5
#: Open connections. For one more the oldest is closed that has brought no request yet, but none
#: that is younger than so many seconds.
CONNECTIONS = 512
_GRACE = 0.5

#: The most that TLS has in one record.
_RECORD = 16 * 1024
#: Bytes of a request's head; gunicorn parses less.
_MAX_HEAD = 64 * 1024
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
#: Requests up to this size always have room; larger ones share what is set aside for them.
_SMALL = 256 * 1024
_SHARED = 64 * 1024 * 1024

log = structlog.get_logger()


class Progress(Enum):
    """How far a request has come."""

    WAITING = auto()
    WHOLE = auto()
    GONE = auto()


class Room:
    """Memory for large requests that are still arriving; thread-safe."""

    def __init__(self, size: int = _SHARED) -> None:
        self._lock = threading.Lock()  # guards the next one
        self._left = size

    def take(self, size: int) -> bool:
        """Set room aside for a request of `size` bytes, if there is any."""
        if size <= _SMALL:
            return True
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Undo `take`."""
        if size > _SMALL:
            with self._lock:
                self._left += size


class Gathered(Unreader):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn's parser reads from: the pieces of a request as they came, and never a socket.

    They are not joined: gunicorn copies all that it was given for each kilobyte that it passes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pieces: deque[bytes] = deque()

    def chunk(self, size_hint: int | None = None) -> bytes:
        del size_hint
        if self.pieces:
            return self.pieces.popleft()
        raise ConnectionResetError(errno.ECONNRESET, "the request ends elsewhere than it tells")


class Peer:
    """The receiving side of one connection: first its handshake, then request after request.

    Used by one thread at a time. A request of which nothing may be read before it is refused, too
    large or of untold size, counts as whole when its head is there.
    """

    def __init__(self, sock: ssl.SSLSocket, *, room: Room, max_body: int, idle: float) -> None:
        #: The request that has arrived, to be parsed.
        self.gathered = Gathered()
        self.since = time.monotonic()
        #: Monotonic time at which the connection is closed unless something is whole by then.
        self.deadline = self.since + HANDSHAKE_TIMEOUT
        self._sock = sock
        self._room = room
        self._max_body = max_body
        self._idle = idle
        self._secured = False
        self._have = 0
        self._size: int | None = None

    def end(self) -> None:
        """Be done with a request, give its room back, and be ready for another."""
        if self._size is not None:
            self._room.give_back(self._size)
        self._have = 0
        self._size = None
        self.deadline = time.monotonic() + self._idle

    def gather(self) -> Progress:
        """Read what is there, and what follows at once."""
        try:
            return self._gather()
        except (TimeoutError, ssl.SSLWantReadError):
            return Progress.WAITING
        except (OSError, _Excess) as error:
            log.debug("connection given up", **{ERROR: str(error)})
            return Progress.GONE

    def _gather(self) -> Progress:
        if not self._secured:
            # No patience with those of whom nothing is known.
            self._sock.settimeout(0.0)
            self._sock.do_handshake()
            self._secured = True
            self.deadline = time.monotonic() + self._idle
        until = time.monotonic() + _PATIENCE
        self._sock.settimeout(_PATIENCE)
        if self._have == 0 and (early := self.gathered.take_buffered()):
            self._take(early)
        while not self._whole():
            # What OpenSSL holds already, the poller would not see.
            if time.monotonic() > until and not self._sock.pending():
                return Progress.WAITING
            piece = self._sock.recv(_RECORD)
            if not piece:
                return Progress.GONE
            self._take(piece)
        return Progress.WHOLE

    def _take(self, piece: bytes) -> None:
        pieces = self.gathered.pieces
        if self._have == 0:
            pieces.clear()
            self.deadline = time.monotonic() + REQUEST_TIMEOUT
        self._have += len(piece)
        if self._size is None:
            piece = (pieces.pop() if pieces else b"") + piece
            self._size = self._measure(piece)
        pieces.append(piece)

    def _measure(self, data: bytes) -> int | None:
        """Return how long the request is, once its head is there."""
        end = data.find(_HEAD_END)
        if end < 0:
            if len(data) > _MAX_HEAD:
                raise _Excess("the head of the request is too long")
            return None
        head = data[: end + len(_HEAD_END)]
        told = _LENGTH.search(head)
        length = 0 if told is None or _CHUNKED.search(head) else int(told[1])
        size = len(head) + (length if length <= self._max_body else 0)
        if not self._room.take(size):
            raise _Excess("too many large requests at once")
        return size

    def _whole(self) -> bool:
        return self._size is not None and self._have >= self._size


class _Excess(Exception):
    """The peer sends more than there is room for."""


class ArrivalWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gthread whose threads get whole requests, and whose main loop waits for nobody.

    The main loop alone uses what it keeps: connections change hands through gunicorn's queues.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._room = Room()
        self._arriving: dict[Any, None] = {}
        #: Deadline and bytes of those that have their last answer.
        self._leaving: dict[Any, tuple[float, int]] = {}
        self._sweep_at = 0.0

    def accept(self, listener: Any) -> None:
        try:
            raw, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        conn = TConn(self.cfg, raw, address, listener.getsockname())
        try:
            conn.sock = self.app.context().wrap_socket(
                raw, server_side=True, do_handshake_on_connect=False
            )
        except OSError as error:  # the peer is gone already
            log.debug("connection given up", **{ERROR: str(error)})
            self._drop(conn)
            return
        conn.peer = Peer(
            conn.sock,
            room=self._room,
            max_body=self.app.settings.max_body,
            idle=self.app.settings.keepalive,
        )
        conn.parser = get_parser(self.cfg, conn.sock, conn.client)
        conn.parser.unreader = conn.peer.gathered
        conn.initialized = True
        self._await(conn)

    def handle(self, conn: Any) -> Any:
        while True:
            progress = conn.peer.gather()
            if progress is not Progress.WHOLE:
                return progress
            result = super().handle(conn)
            conn.peer.end()
            # What OpenSSL holds already, the poller would not see.
            if result is not True or not conn.sock.pending():
                return result

    def finish_request(self, conn: Any, fs: Any) -> None:
        try:
            result = fs.result()
        except Exception:
            log.exception("connection failed")
            result = Progress.GONE
        if result is Progress.WAITING:
            self._await(conn)
        elif result is True:
            super().finish_request(conn, fs)
        else:
            self._leave(conn)

    def murder_pending(self) -> None:
        """Close the connections whose time is over, or for which there is no room.

        gunicorn calls this after each round of its main loop. Within one, an event of a connection
        that was closed meanwhile could follow.
        """
        now = time.monotonic()
        self._make_room(now)
        if now < self._sweep_at and self.alive:
            return
        self._sweep_at = now + _SWEEP
        for conn in [c for c in self._arriving if c.peer.deadline <= now or not self.alive]:
            self._forget(conn)
        for conn in [c for c, (deadline, _) in self._leaving.items() if deadline <= now]:
            self._forget(conn)

    def _await(self, conn: Any) -> None:
        self._arriving[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_arrival, conn))

    def _on_arrival(self, conn: Any, sock: Any) -> None:
        self.poller.unregister(sock)
        del self._arriving[conn]
        self.enqueue_req(conn)

    def _leave(self, conn: Any) -> None:
        """Close our end, and the rest when the peer has read our last words (RFC 9112, 9.6)."""
        conn.peer.end()
        try:
            conn.sock.settimeout(0.0)
            conn.sock.shutdown(socket.SHUT_WR)
            self.poller.register(
                conn.sock, selectors.EVENT_READ, partial(self._on_last_bytes, conn)
            )
        except (OSError, ValueError):  # the peer is gone already
            self._drop(conn)
            return
        self._leaving[conn] = (time.monotonic() + _LEAVE_TIMEOUT, _LEAVE_BYTES)

    def _on_last_bytes(self, conn: Any, sock: Any) -> None:
        deadline, left = self._leaving[conn]
        try:
            received = len(sock.recv(_RECORD))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        if 0 < received < left:
            self._leaving[conn] = (deadline, left - received)
        else:
            self._forget(conn)

    def _make_room(self, now: float) -> None:
        """Close a connection when there is no other place for a new one; not one that just came."""
        if self.nr_conns < self.worker_connections:
            return
        waiting = (conn for conn in self._arriving if conn.peer.since < now - _GRACE)
        conn = next(iter(self._leaving), None) or min(
            waiting, key=lambda conn: conn.peer.since, default=None
        )
        if conn is not None:
            self._forget(conn)
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._drop(conn)

    def _forget(self, conn: Any) -> None:
        self._arriving.pop(conn, None)
        self._leaving.pop(conn, None)
        self.poller.unregister(conn.sock)
        conn.peer.end()
        self._drop(conn)

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

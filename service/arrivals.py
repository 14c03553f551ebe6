"""Receiving requests without a thread: what one peer sends, and how long it may take for it.

A thread works on a connection only for moments in which its peer has sent something, and the
application begins when the whole request lies in memory. What a request says is not looked into,
only where it ends. Which connections stay when there are too many is decided in `service.crowd`.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

import structlog
from gunicorn.http.unreader import Unreader

from service.crowd import Stage
from service.logs import ERROR

#: Seconds for the whole TLS handshake, and for the whole of a request after its first byte.
HANDSHAKE_TIMEOUT = 5.0
REQUEST_TIMEOUT = 10.0
#: Seconds for which a thread waits for the rest of a request: its bytes come close together.
_PATIENCE = 0.01

#: The most that TLS has in one record.
RECORD = 16 * 1024
#: Bytes of a request's head; gunicorn parses less.
_MAX_HEAD = 64 * 1024
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
#: Bytes of a request that always have room; what comes beyond shares what is set aside for it.
_SMALL = 16 * 1024

log = structlog.get_logger()


class Progress(Enum):
    """How far a request has come."""

    WAITING = auto()
    WHOLE = auto()
    GONE = auto()


class Room:
    """Memory for the large requests that are still arriving, in bytes; thread-safe."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()  # guards the next one
        self._left = size

    def take(self, size: int) -> bool:
        """Set room aside for `size` bytes, if there is any."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """Undo `take`."""
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
    large or of untold size, counts as whole when its head is there. `rooms` are for the requests of
    strangers and of those that have brought a whole one before.
    """

    def __init__(
        self,
        raw: socket.socket,
        *,
        secure: Callable[[socket.socket], ssl.SSLSocket],
        rooms: tuple[Room, Room],
        max_body: int,
        idle: float,
    ) -> None:
        #: The request that has arrived, to be parsed.
        self.gathered = Gathered()
        #: Whether it has brought a whole request, so that it is no stranger.
        self.known = False
        #: Whether a thread works on it now.
        self.busy = False
        self.stage = Stage.SILENT
        self.since = time.monotonic()
        #: Monotonic time at which the connection is closed unless something is whole by then.
        self.deadline = self.since + HANDSHAKE_TIMEOUT
        #: In the clear until its first bytes have come: the silent ones cost next to nothing.
        self.sock = raw
        self._tls: ssl.SSLSocket | None = None
        self._secure = secure
        self._rooms = rooms
        self._max_body = max_body
        self._idle = idle
        self._have = self._charged = 0
        self._size: int | None = None

    def end(self) -> None:
        """Be done with a request, give its room back, and be ready for another."""
        self._rooms[self.known].give_back(self._charged)
        self._have = self._charged = 0
        self._size = None
        self.deadline = time.monotonic() + self._idle

    def served(self) -> None:
        """Be done with a whole request: be a stranger no more."""
        self.end()
        self.known = True

    def gather(self) -> Progress:
        """Read what is there, and of those who are known what follows at once."""
        try:
            return self._gather()
        except (TimeoutError, ssl.SSLWantReadError):
            return Progress.WAITING
        except (OSError, _Excess) as error:
            log.debug("connection given up", **{ERROR: str(error)})
            return Progress.GONE

    def _gather(self) -> Progress:
        tls = self._secured()
        # Bytes that come one by one would keep a thread for as long as somebody likes.
        patience = _PATIENCE if self.known and self._have == 0 else 0.0
        until = time.monotonic() + patience
        tls.settimeout(patience)
        if self._have == 0 and (early := self.gathered.take_buffered()):
            self._take(early)
        while not self._whole():
            # What OpenSSL holds already, the poller would not see.
            if time.monotonic() > until and patience and not tls.pending():
                return Progress.WAITING
            piece = tls.recv(RECORD)
            if not piece:
                return Progress.GONE
            self._take(piece)
        return Progress.WHOLE

    def _secured(self) -> ssl.SSLSocket:
        if self._tls is not None and self.stage.secured:
            return self._tls
        if self._tls is None:
            self.stage = Stage.SHAKING
            self.sock = self._tls = self._secure(self.sock)
        self._tls.settimeout(0.0)
        self._tls.do_handshake()
        self.stage = Stage.QUIET
        self.deadline = time.monotonic() + self._idle
        return self._tls

    def _take(self, piece: bytes) -> None:
        pieces = self.gathered.pieces
        if self._have == 0:
            pieces.clear()
            self.stage = Stage.SENDING
            self.deadline = time.monotonic() + REQUEST_TIMEOUT
        self._have += len(piece)
        self._charge()
        if self._size is None:
            piece = (pieces.pop() if pieces else b"") + piece
            self._size = self._measure(piece)
        pieces.append(piece)

    def _charge(self) -> None:
        beyond = self._have - _SMALL - self._charged
        if beyond > 0:
            if not self._rooms[self.known].take(beyond):
                raise _Excess("too many large requests at once")
            self._charged += beyond

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
        return len(head) + (length if length <= self._max_body else 0)

    def _whole(self) -> bool:
        return self._size is not None and self._have >= self._size


class _Excess(Exception):
    """The peer sends more than there is room for."""

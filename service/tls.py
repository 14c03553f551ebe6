"""TLS of our servers: contexts that follow their files, and sockets that give up on slow peers.

Makes no certificates. Peer names are read here, what a name may do is decided by the caller.
"""

from __future__ import annotations

import errno
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from service.logs import ERROR

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: Seconds for a peer to take the next bytes of its answer.
ANSWER_TIMEOUT = 10.0

_Stamp = tuple[tuple[int, int, int], ...]

log = structlog.get_logger()


class TlsError(Exception):
    """The files cannot serve TLS: missing, not PEM, or key and certificate do not match."""


class ServerSocket(ssl.SSLSocket):
    """A server's TLS socket that bounds what one peer can cost a thread.

    Requests have arrived whole before a thread works on them (`service.arrivals`). So in blocking
    mode, which gunicorn's worker sets before each request, there is nothing to wait for but that
    the peer takes its answer; one that does not is treated as one that reset the connection.
    """

    #: How many threads may wait so at the same time; the peers of others are closed at once.
    may_stall: threading.Semaphore | None = None
    _peer: Any = None
    _held: list[bytes] | None = None

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Read what was proven in the handshake once: it is asked for with every request."""
        if binary_form:
            return super().getpeercert(binary_form=True)
        if self._peer is None:
            self._peer = super().getpeercert()
        return self._peer

    def setblocking(self, flag: bool) -> None:
        self.settimeout(ANSWER_TIMEOUT if flag else 0.0)

    def hold(self) -> None:
        """Keep what is sent until `release`: gunicorn sends head and body of an answer one by one,
        and each would be a TLS record, a system call, and a wake-up of the peer.
        """
        self._held = []

    def release(self) -> None:
        """Send what was kept; raises OSError as sending does."""
        held, self._held = self._held, None
        if held:
            super().sendall(b"".join(held))

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        if self._held is None:
            super().sendall(data, flags)
        else:
            self._held.append(bytes(data))

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        # At first without waiting: what is small has place in the system's buffer.
        waits = self.gettimeout()
        self.settimeout(0.0)
        try:
            return super().send(data, flags)
        except ssl.SSLWantWriteError:
            return self._send_patiently(data, flags)
        finally:
            self.settimeout(waits)

    def _send_patiently(self, data: ReadableBuffer, flags: int) -> int:
        if self.may_stall is not None and not self.may_stall.acquire(blocking=False):
            raise _given_up("too many such peers")
        try:
            self.settimeout(ANSWER_TIMEOUT)
            return super().send(data, flags)
        except TimeoutError as error:
            raise _given_up("it took too long") from error
        finally:
            if self.may_stall is not None:
                self.may_stall.release()


def _given_up(why: str) -> ConnectionResetError:
    log.debug("peer takes no answer", **{ERROR: why})
    return ConnectionResetError(errno.ECONNRESET, f"the peer takes no answer: {why}")


class FollowingContext:
    """Calling it returns the TLS context to use for a new connection.

    A new context is built when a file changed, seen by its stamp and through symlinks, because
    Kubernetes swaps Secret volumes by symlink. Never is a live context extended: a client CA that
    was withdrawn must not stay trusted. While the files do not fit together, which happens in the
    middle of a swap, the last good context stays.
    """

    def __init__(self, *, cert_file: str, key_file: str, client_ca_file: str | None = None) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        self._lock = threading.Lock()
        self._complained: _Stamp | None = None
        # The stamp is taken before the files are read: a change in between is seen next time.
        self._seen = self._stamp()
        self._context = self._build()

    def __call__(self) -> ssl.SSLContext:
        """Return the current context; never raises once the first one was built."""
        with self._lock:
            try:
                self._refresh()
            except TlsError as error:
                self._complain(error)
            return self._context

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._context = self._build()
        self._seen = stamp
        log.info("certificates reloaded", file=self._cert_file)

    def _complain(self, error: TlsError) -> None:
        try:
            stamp = self._stamp()
        except TlsError:
            stamp = ()
        if stamp != self._complained:
            self._complained = stamp
            log.warning("certificates unusable, the last ones stay", **{ERROR: str(error)})

    def _stamp(self) -> _Stamp:
        return tuple(_file_stamp(file) for file in self._files())

    def _files(self) -> tuple[str, ...]:
        files = (self._cert_file, self._key_file)
        return files if self._client_ca_file is None else (*files, self._client_ca_file)

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.sslsocket_class = ServerSocket
        # Go clients keep no sessions unless told to, and tickets cost a third of the handshake.
        context.num_tickets = 0
        try:
            context.load_cert_chain(self._cert_file, self._key_file)
            if self._client_ca_file is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._client_ca_file)
        except (OSError, ValueError) as error:
            raise TlsError(f"cannot serve TLS with {', '.join(self._files())}: {error}") from error
        return context


def peer_common_name(environ: Mapping[str, Any]) -> str | None:
    """Return the common name of the verified client certificate of a gunicorn request, if any."""
    # typeshed types the subject loosely; it is a tuple of RDNs, each a tuple of (name, value).
    for rdn in _peer(environ).get("subject", ()):
        for name, value in rdn:
            if name == "commonName":
                return str(value)
    return None


def peer_not_after(environ: Mapping[str, Any]) -> str | None:
    """Return when that certificate expires, as `ssl.cert_time_to_seconds` reads it."""
    told: str | None = _peer(environ).get("notAfter")
    return told


def _peer(environ: Mapping[str, Any]) -> Mapping[str, Any]:
    sock = environ.get("gunicorn.socket")
    return (sock.getpeercert() or {}) if isinstance(sock, ssl.SSLSocket) else {}


def _file_stamp(file: str) -> tuple[int, int, int]:
    try:
        stat = Path(file).stat()
    except OSError as error:
        raise TlsError(f"cannot serve TLS: {error}") from error
    return stat.st_ino, stat.st_size, stat.st_mtime_ns

"""gunicorn's gthread worker, made to wait for nobody: what slow, silent and hostile peers cost.

gthread lets a thread wait for what a peer sends, and its main loop for a peer to close its end: a
few silent peers stop it (gunicorn issue 2507). Here strangers, who have brought no request yet,
have threads of their own, few for very many; who has brought one before always finds a thread, and
is never closed for a stranger's sake.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import structlog
from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.arrivals import RECORD, Peer, Progress, Room
from service.crowd import Crowd
from service.logs import ERROR

#: Seconds for which a peer may close its end after its last answer, and bytes it may still send.
_LEAVE_TIMEOUT = 2.0
_LEAVE_BYTES = 64 * 1024
#: Seconds between looks for connections whose time is over.
_SWEEP = 0.5
#: The part of all connections that strangers may take from others.
_STRANGERS = 0.75
#: Threads for strangers; most of a handshake runs without Python's lock.
_GATE_THREADS = 2
#: Bytes set aside for the large requests of strangers, and of the others.
_ROOMS = (8 * 1024 * 1024, 48 * 1024 * 1024)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = structlog.get_logger()


class ArrivalWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gthread whose threads get whole requests, and whose main loop waits for nobody.

    The main loop alone uses what it keeps: connections change hands through gunicorn's queues.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        strangers, others = _ROOMS
        self._rooms = (Room(strangers), Room(others))
        self._gate = ThreadPoolExecutor(_GATE_THREADS, thread_name_prefix="gate")
        self._crowd = Crowd()
        #: Those that a request is still arriving of, strangers and others.
        self._arriving: dict[Any, None] = {}
        #: Deadline and bytes of those that have their last answer.
        self._leaving: dict[Any, tuple[float, int]] = {}
        self._sweep_at = 0.0
        self._may_stall = threading.Semaphore(max(1, self.cfg.threads // 4))

    def accept(self, listener: Any) -> None:
        try:
            raw, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._take_fewer(error)
            return
        self.nr_conns += 1
        conn = TConn(self.cfg, raw, address, listener.getsockname())
        settings = self.app.settings
        conn.peer = Peer(
            raw,
            secure=self._secure,
            rooms=self._rooms,
            max_body=settings.max_body,
            idle=settings.keepalive,
        )
        conn.initialized = True
        self._await(conn)

    def handle(self, conn: Any) -> Any:
        while True:
            progress = conn.peer.gather()
            if progress is not Progress.WHOLE:
                return progress
            result = self._answer(conn)
            conn.peer.served()
            # What OpenSSL holds already, the poller would not see.
            if result is not True or not conn.sock.pending():
                return result

    def _answer(self, conn: Any) -> Any:
        conn.sock.hold()
        result = super().handle(conn)
        try:
            conn.sock.release()
        except OSError as error:
            log.debug("connection given up", **{ERROR: str(error)})
            return Progress.GONE
        return result

    def finish_request(self, conn: Any, fs: Any) -> None:
        try:
            result = fs.result()
        except Exception:
            log.exception("connection failed")
            result = Progress.GONE
        if result is Progress.WHOLE:
            return
        conn.peer.busy = False
        if result is Progress.WAITING:
            self._await(conn)
            return
        self._crowd.remove(conn)
        if result is True:
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
        over = [conn for conn in self._arriving if conn.peer.deadline <= now]
        if not self.alive:
            over = [conn for conn in self._arriving if conn.peer.stage.idle or conn in over]
        for conn in over:
            self._forget(conn)
        for conn in [c for c, (deadline, _) in self._leaving.items() if deadline <= now]:
            self._forget(conn)

    def _secure(self, raw: socket.socket) -> ssl.SSLSocket:
        tls: ssl.SSLSocket = self.app.context().wrap_socket(
            raw, server_side=True, do_handshake_on_connect=False
        )
        tls.may_stall = self._may_stall  # type: ignore[attr-defined]  # a service.tls.ServerSocket
        return tls

    def _admit(self, conn: Any) -> Progress:
        """Bring a stranger's handshake and request forward, and hand a whole request on."""
        progress: Progress = conn.peer.gather()
        conn.sock = conn.peer.sock
        if progress is Progress.WHOLE:
            conn.parser = get_parser(self.cfg, conn.sock, conn.client)
            conn.parser.unreader = conn.peer.gathered
            self.enqueue_req(conn)
        return progress

    def _await(self, conn: Any) -> None:
        if not conn.peer.known:
            self._crowd.put(conn)
        self._arriving[conn] = None
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_arrival, conn))

    def _on_arrival(self, conn: Any, sock: Any) -> None:
        self.poller.unregister(sock)
        del self._arriving[conn]
        conn.peer.busy = True
        if conn.peer.known:
            self.enqueue_req(conn)
            return
        admitted = self._gate.submit(self._admit, conn)
        admitted.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

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
            received = len(sock.recv(RECORD))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        if 0 < received < left:
            self._leaving[conn] = (deadline, left - received)
        else:
            self._forget(conn)

    def _make_room(self, now: float) -> None:
        """Close a connection when there is no other place for a new one."""
        if self.nr_conns < self.worker_connections:
            return
        crowded = len(self._crowd) >= _STRANGERS * self.worker_connections
        conn = next(iter(self._leaving), None)
        if conn is None and (crowded or not self.keepalived_conns):
            conn = self._crowd.first_to_leave(now)
        if conn is not None:
            self._forget(conn)
        elif self.keepalived_conns and not crowded:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._drop(conn)

    def _take_fewer(self, error: OSError) -> None:
        """Go on with as many connections as there are: the system gives no more."""
        self.worker_connections = max(1, self.nr_conns)
        self.max_keepalived = max(1, self.worker_connections - self.cfg.threads)
        log.warning("fewer connections than wanted", most=self.nr_conns, **{ERROR: str(error)})

    def _forget(self, conn: Any) -> None:
        self._arriving.pop(conn, None)
        self._leaving.pop(conn, None)
        self._crowd.remove(conn)
        self.poller.unregister(conn.sock)
        conn.peer.end()
        self._drop(conn)

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()

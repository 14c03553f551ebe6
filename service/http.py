"""HTTPS serving: gunicorn inside the process, one threaded worker, nothing read from outside.

One worker, because a second would hold a second copy of all state. gunicorn keeps a parent that
forks the worker: threads are started in `on_start`, which runs in the worker after the fork.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from gunicorn.app.base import BaseApplication
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

from service.crowd import places
from service.tls import FollowingContext
from service.worker import ArrivalWorker

Hook = Callable[[], None]

#: Seconds that gunicorn's parent adds to the worker's own time to stop before it kills it.
_STOP_MARGIN = 15
#: Seconds between signs of life to gunicorn's parent, which waits for 30 s.
_SIGN_OF_LIFE = 1.0
#: Milliseconds for which a thread waits for the next request on a kept-alive connection.
_LINGER = 50
#: Digits of a Content-Length that are read; Python refuses to read very many.
_DIGITS = 18
#: Signals that would make gunicorn re-execute, reload, or run another number of workers.
_UNWANTED_SIGNALS = (
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where and how to serve; all times in seconds, `max_body` in bytes.

    `keepalive` must exceed the idle timeout of Go clients (90 s), so that it is the client who
    closes an idle connection and no POST meets a dead socket. After SIGTERM requests are served
    for `drain` seconds more, for clients that do not know yet, and then those in flight have
    `graceful` seconds to end.
    """

    host: str
    port: int
    cert_file: str
    key_file: str
    client_ca_file: str | None = None
    threads: int = 16
    keepalive: int = 120
    max_body: int = 8 * 1024 * 1024
    drain: float = 5.0
    graceful: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if self.threads < 1 or self.max_body < 1:
            raise ValueError("threads and max_body must be at least 1")
        if self.keepalive < 120:
            raise ValueError("keepalive must be at least 120 s: Go clients keep sockets for 90 s")


def serve(
    app: WSGIApplication,
    settings: ServerSettings,
    *,
    on_start: Hook,
    on_stop: Hook,
    on_drain: Hook = lambda: None,
) -> None:
    """Serve `app` over HTTPS until SIGTERM or SIGINT; ends by SystemExit, also when it fails.

    In the worker process, `on_start` runs before the first request, `on_drain` at once after
    SIGTERM (the place to become not ready), `on_stop` after the last request. Raises `TlsError`
    before anything is started when the certificate files cannot be used.
    """
    context = FollowingContext(
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        client_ca_file=settings.client_ca_file,
    )
    hooks = _Hooks(on_start=on_start, on_drain=on_drain, on_stop=on_stop)
    _Application(limit_body(app, settings.max_body), settings, context=context, hooks=hooks).run()


def limit_body(app: WSGIApplication, max_body: int) -> WSGIApplication:
    """Refuse requests whose body is larger than `max_body` bytes or does not tell its size."""

    def limited(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = _length(environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"))
        if length is None:
            return _refuse(start_response, "411 Length Required", "send a Content-Length")
        if length > max_body:
            text = f"the body may have at most {max_body} bytes"
            return _refuse(start_response, "413 Content Too Large", text)
        return app(environ, start_response)

    return limited


def _length(told: str | None, encoding: str | None) -> int | None:
    """Return the size of a body by its headers; None when they do not tell."""
    told = told or "0"
    if encoding is not None or not told.isascii() or not told.isdigit() or len(told) > _DIGITS:
        return None
    return int(told)


def _refuse(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hooks:
    on_start: Hook
    on_drain: Hook
    on_stop: Hook


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(
        self,
        app: WSGIApplication,
        settings: ServerSettings,
        *,
        context: FollowingContext,
        hooks: _Hooks,
    ) -> None:
        self.app = app
        self.settings = settings
        self.context = context
        self.hooks = hooks
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        values: dict[str, Any] = {
            "bind": f"{host}:{settings.port}",
            "worker_class": _Worker,
            "workers": 1,
            "threads": settings.threads,
            "worker_connections": places(),
            "keepalive": settings.keepalive,
            "max_requests": 0,
            "preload_app": False,
            "graceful_timeout": int(settings.drain) + settings.graceful + _STOP_MARGIN,
            "certfile": settings.cert_file,
            "keyfile": settings.key_file,
            "ssl_context": self._context_hook,
            "control_socket_disable": True,
            "logger_class": _QuietLogger,
            "when_ready": _when_ready,
            "post_worker_init": lambda _worker: self.hooks.on_start(),
            "child_exit": _child_exit,
        }
        if os.access("/dev/shm", os.W_OK):  # noqa: S108 - a heartbeat file, never reopened by name
            values["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> WSGIApplication:
        return self.app

    def _context_hook(self, _conf: Any, _default: Any) -> ssl.SSLContext:
        return self.context()


class _Worker(ArrivalWorker):
    """gthread that keeps serving for a while after SIGTERM, and runs `on_stop` at its end.

    A request that soon follows another on the same connection is served by the same thread, with
    no way through the main loop and the queue: half the cost of a small request. At most half of
    the threads wait so.
    """

    _draining = False
    _notified = float("-inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._may_linger = threading.Semaphore(self.cfg.threads // 2)

    def notify(self) -> None:
        now = time.monotonic()
        if now - self._notified >= _SIGN_OF_LIFE:
            self._notified = now
            super().notify()

    def handle(self, conn: Any) -> Any:
        result = super().handle(conn)
        while result is True and self._next_follows(conn):
            result = super().handle(conn)
        return result

    def _next_follows(self, conn: Any) -> bool:
        if self._draining or not self.alive or conn.parser.unreader.buf.getvalue():
            return False
        if not self._may_linger.acquire(blocking=False):
            return False
        try:
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            return bool(poll.poll(_LINGER))
        finally:
            self._may_linger.release()

    def run(self) -> None:
        # The parent relays what a terminal sends to the whole process group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.cfg.set("graceful_timeout", self.app.settings.graceful)
        self.cfg.set("pre_request", self._pre_request)
        try:
            super().run()
        finally:
            self.app.hooks.on_stop()

    def handle_exit(self, sig: int, frame: Any) -> None:
        # A signal handler: only what is safe there, the rest on the main loop.
        self.method_queue.defer(self._drain, sig, frame)

    def _drain(self, sig: int, frame: Any) -> None:
        if self._draining:
            return
        self._draining = True
        self.app.hooks.on_drain()
        log.info("draining", seconds=self.app.settings.drain)
        stop = threading.Timer(self.app.settings.drain, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()

    def _pre_request(self, _worker: Any, request: Any) -> None:
        headers = dict(request.headers)
        length = _length(headers.get("CONTENT-LENGTH"), headers.get("TRANSFER-ENCODING"))
        # "Connection: close" sends clients with kept-alive connections elsewhere; and nobody reads
        # a body that is refused.
        if self._draining or length is None or length > self.app.settings.max_body:
            request.force_close()


class _QuietLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """Lets gunicorn's records flow to the root logger; what it says below WARNING we say better."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True


def _when_ready(arbiter: Any) -> None:
    for number in _UNWANTED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for listener in arbiter.LISTENERS:
        host, port = listener.getsockname()[:2]
        log.info("listening", host=host, port=port)


def _child_exit(arbiter: Any, _worker: Any) -> None:
    # A new worker would start from nothing without Kubernetes' back-off and without being seen;
    # the listeners are closed only when the end was asked for.
    if arbiter.LISTENERS:
        raise HaltServer("the worker ended", 1)

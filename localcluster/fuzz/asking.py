"""Asking an application as gunicorn does, and what is wrong with an answer of any of them."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol
from wsgiref.types import WSGIApplication

JSON = "application/json"
MAX_BODY = 8 * 1024 * 1024

_DIGITS = 4000
"""What Python reads of a number, nearly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: what there is to repeat it."""

    path: str
    body: bytes
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Got:
    """One answer."""

    status: int
    content_type: str
    body: bytes


class Wrong(Exception):
    """An answer that is not in order; the text says why."""


class Target(Protocol):
    """An application that can be asked."""

    def request(self, rng: Random) -> Sent:
        """Return a request, wrong or not."""

    def answered(self, sent: Sent) -> str:
        """Send it and return what kind of answer came; raises `Wrong`, or what the application let
        through.
        """

    def close(self) -> None:
        """Give back what it took."""


def call(app: WSGIApplication, sent: Sent, *, peer: ssl.SSLSocket | None = None) -> Got:
    """Ask an application as gunicorn does."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": sent.path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": sent.content_type,
        "CONTENT_LENGTH": str(len(sent.body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(sent.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "gunicorn.socket": peer,
    }
    told: list[Any] = []

    def start(status: str, headers: Any, _error: Any = None, /) -> Callable[[bytes], object]:
        told.append((status, headers))
        return lambda _written: None

    body = b"".join(app(environ, start))
    status, headers = told[-1]
    return Got(int(status[:3]), dict(headers).get("Content-Type", ""), body)


def understood(body: bytes) -> Any:
    """Read a request that was taken: what nobody looks at in it may be no text at all."""
    return json.loads(body.decode(errors="replace"), parse_int=_number)


def _number(digits: str) -> int:
    return int(digits[:_DIGITS])


def check(right: bool, text: str) -> None:
    """Raise `Wrong` unless `right`."""
    if not right:
        raise Wrong(text)

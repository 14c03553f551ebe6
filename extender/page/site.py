"""The page over HTTP: files, and JSON from the feed. GET only, no cookies, nothing from elsewhere.

The port is plain and without login, so whoever reaches it may look; what names a host that is not
meant here is refused, or a web site that a viewer visits could read the page by DNS rebinding.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from gzip import compress
from hashlib import blake2b
from http import HTTPStatus
from importlib.resources import files

from extender.page.feed import Feed
from gpus.model import DeviceId, NodeName
from service.side_port import Answer, Request

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_PREFIX = "/page/"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
#: Names by which a Service is reached within the cluster.
_IN_CLUSTER = (".svc", ".svc.cluster.local")
_WRONG_HOST = (
    "This page answers to localhost, to an IP address and to names that end with .svc. Use\n"
    "kubectl port-forward, or let the proxy before it set the header Host to localhost.\n"
)


@dataclass(frozen=True, slots=True)
class _File:
    content_type: str
    plain: bytes
    packed: bytes
    tag: str


class Site:
    """Answers what the side port passes on."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._files = _files()

    def answer(self, request: Request) -> Answer:
        """Return what a GET gets."""
        if not _is_ours(request.headers.get("host", "")):
            return _answer(_TEXT, _WRONG_HOST.encode(), status=HTTPStatus.MISDIRECTED_REQUEST)
        file = self._files.get(request.path)
        if file is not None:
            return _of_file(file, request)
        if request.path == f"{_PREFIX}state":
            message = self._feed.since(request.query.get("since", ""))
            return _packed(_JSON, message.plain, message.packed, request)
        if request.path == f"{_PREFIX}node":
            return _found(self._feed.node(NodeName(request.query.get("name", ""))))
        if request.path == f"{_PREFIX}device":
            return _found(self._feed.device(DeviceId(request.query.get("id", ""))))
        return _answer(_TEXT, b"not found\n", status=HTTPStatus.NOT_FOUND)


def _files() -> Mapping[str, _File]:
    found: dict[str, _File] = {}
    for entry in files("extender.page").joinpath("static").iterdir():
        suffix = f".{entry.name.rpartition('.')[2]}"
        if suffix in _TYPES:
            plain = entry.read_bytes()
            tag = f'"{blake2b(plain, digest_size=12).hexdigest()}"'
            path = "/" if entry.name == "index.html" else f"{_PREFIX}{entry.name}"
            found[path] = _File(_TYPES[suffix], plain, compress(plain, mtime=0), tag)
    return found


def _is_ours(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(_IN_CLUSTER):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _of_file(file: _File, request: Request) -> Answer:
    headers = {"ETag": file.tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == file.tag:
        return _answer(file.content_type, b"", status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return _packed(file.content_type, file.plain, file.packed, request, headers=headers)


def _found(content: bytes | None) -> Answer:
    """Answer a question; that there is no such thing is an answer too, and no error."""
    return _answer(_JSON, content or b"null")


def _packed(
    content_type: str,
    plain: bytes,
    packed: bytes,
    request: Request,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return _answer(content_type, plain, headers=headers)
    return _answer(content_type, packed, headers={"Content-Encoding": "gzip", **(headers or {})})


def _answer(
    content_type: str,
    body: bytes,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    return Answer(
        status=status,
        content_type=content_type,
        body=body,
        headers={**_HEADERS, "Cache-Control": "no-store", **(headers or {})},
    )

"""One pooled, thread-safe HTTP client for the API server; bytes in, bytes out, errors as classes.

No retries here: the caller knows whether a call may be repeated.
"""

from __future__ import annotations

import copy
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Self, TypeVar, overload
from urllib.parse import urlencode

import msgspec
import urllib3

from kube.connection import Connection
from kube.errors import ConnectionFailed, IdleTimeout, KubeError, api_error
from kube.objects import ListMeta, Status
from kube.wire import decoder

T = TypeVar("T")

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
#: The body is JSON, which is YAML too; the API server knows the type only by this name.
APPLY_PATCH = "application/apply-patch+yaml"

#: What the API server is asked for instead of whole objects ("Metadata-only fetches").
_METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

#: Seconds for one ordinary call; below kube-scheduler's patience with an extender.
DEFAULT_TIMEOUT = 10.0
#: Error texts of foreign servers are cut: they end in logs and Events.
_MAX_MESSAGE = 1024
#: Seconds; longer requests for patience are cut, for we would look dead.
_MAX_RETRY_AFTER = 300.0
#: Objects a page of a list; what client-go's pager asks for.
_PAGE = "500"

Params = Mapping[str, str]


class BadAnswer(KubeError):
    """The API server's answer could not be decoded as what was asked for."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One request; its text names it in errors, without the body."""

    method: str
    path: str
    params: Params | None = None
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Client:
    """Calls the API server; one instance serves all threads of a process.

    Paths are absolute API paths such as `/api/v1/nodes/n1`. Every method raises `ApiError` when
    the server refuses and `ConnectionFailed` when it does not answer.
    """

    def __init__(
        self, connection: Connection, *, timeout: float = DEFAULT_TIMEOUT, pool_size: int = 16
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._base, self._pool = _pool(connection, size=pool_size)

    def with_timeout(self, seconds: float) -> Self:
        """Return a client on the same connections whose ordinary calls end after `seconds`."""
        other = copy.copy(self)
        other._timeout = seconds  # noqa: SLF001 - one of our own
        return other

    def close(self) -> None:
        """Give idle connections back to the system; calls made later fail."""
        self._pool.close()

    @overload
    def get(self, path: str, *, type: type[T], params: Params | None = None) -> T: ...
    @overload
    def get(self, path: str, *, params: Params | None = None) -> Any: ...
    def get(self, path: str, *, type: Any = Any, params: Params | None = None) -> Any:  # noqa: A002
        """Read one object (or one page of a list), decoded as `type`."""
        return self._call(_Call("GET", path, params=params), type=type)

    def text(self, path: str) -> str:
        """Read what is no JSON: metrics or logs, of the API server or of what it stands before."""
        response = self._send(_Call("GET", path), timeout=urllib3.Timeout(self._timeout))
        return response.data.decode(errors="replace")

    def server_time(self) -> datetime:
        """Return the time by the API server's clock, to the second."""
        call = _Call("GET", "/version")
        response = self._send(call, timeout=urllib3.Timeout(self._timeout))
        try:
            return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
        except (KeyError, ValueError) as error:
            raise BadAnswer(f"{call}: no usable Date header") from error

    def list_all(
        self,
        path: str,
        *,
        type: type[T],  # noqa: A002 - as msgspec's
        params: Params | None = None,
        metadata_only: bool = False,
    ) -> Listing[T]:
        """Read a whole collection in pages, as consistent as one read.

        With `metadata_only` the server sends no more of each object, which for pods is half; `type`
        then has its defaults for the rest. A `limit` in `params` is that of a page.

        No resourceVersion is sent: the answer is never older than this call. Raises `Gone` when
        the list outlives the server's memory of its first page; it must then be begun again.
        """
        items: list[T] = []
        version = ""
        for page in self.pages(path, type=type, params=params, metadata_only=metadata_only):
            items += page.items
            version = page.version
        return Listing(version=version, items=items)

    def pages(
        self,
        path: str,
        *,
        type: type[T],  # noqa: A002 - as msgspec's
        params: Params | None = None,
        metadata_only: bool = False,
    ) -> Iterator[Listing[T]]:
        """Read a whole collection as `list_all` does, page by page."""
        query = {"limit": _PAGE, **(params or {})}
        accept = _METADATA if metadata_only else JSON
        while True:
            call = _Call("GET", path, params=query, accept=accept)
            page = self._call(call, type=_Page[type])  # type: ignore[valid-type]
            yield Listing(version=page.metadata.resource_version, items=page.items or [])
            if not page.metadata.continue_:
                return
            query["continue"] = page.metadata.continue_

    def create(self, path: str, body: Any, *, params: Params | None = None) -> Any:
        """POST an object to its collection or subresource."""
        return self._call(_Call("POST", path, body=msgspec.json.encode(body), params=params))

    def replace(self, path: str, body: Any) -> Any:
        """PUT an object; with a resourceVersion in its metadata this is a compare-and-swap."""
        return self._call(_Call("PUT", path, body=msgspec.json.encode(body)))

    def patch(
        self, path: str, body: Any, *, content_type: str, params: Params | None = None
    ) -> Any:
        """PATCH with one of the patch types of this module."""
        return self._call(
            _Call(
                "PATCH",
                path,
                body=msgspec.json.encode(body),
                params=params,
                content_type=content_type,
            )
        )

    def apply(self, path: str, body: Any, *, field_manager: str, force: bool = False) -> Any:
        """Server-side apply (KEP-555): own exactly the fields in `body`."""
        params = {"fieldManager": field_manager, "force": "true" if force else "false"}
        return self.patch(path, body, content_type=APPLY_PATCH, params=params)

    def delete(self, path: str, *, uid: str | None = None, params: Params | None = None) -> Any:
        """DELETE one object; with `uid`, raise `Conflict` when that name is another object now."""
        # metav1.Preconditions have no query form (apimachinery zz_generated.conversion.go).
        body = None if uid is None else msgspec.json.encode({"preconditions": {"uid": uid}})
        return self._call(_Call("DELETE", path, body=body, params=params))

    def stream(self, path: str, *, params: Params, idle_timeout: float) -> Stream:
        """Open a watch; `idle_timeout` seconds without a byte end its lines as `IdleTimeout`."""
        call = _Call("GET", path, params=params)
        response = self._send(call, timeout=urllib3.Timeout(self._timeout), preload=False)
        return Stream(response, idle_timeout=idle_timeout)

    def _call(self, call: _Call, *, type: Any = Any) -> Any:  # noqa: A002
        response = self._send(call, timeout=urllib3.Timeout(self._timeout))
        try:
            return decoder(type).decode(response.data)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"{call}: {error}") from error

    def _send(
        self, call: _Call, *, timeout: urllib3.Timeout, preload: bool = True
    ) -> urllib3.BaseHTTPResponse:
        url = self._base + call.path
        if call.params:
            url += "?" + urlencode(call.params)
        try:
            response = self._pool.urlopen(
                call.method,
                url,
                body=call.body,
                headers=self._headers(call),
                timeout=timeout,
                preload_content=preload,
                redirect=False,
            )
            if response.status >= 300:
                raise _refusal(response)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionFailed(f"{call}: {error}") from error
        return response

    def _headers(self, call: _Call) -> dict[str, str]:
        headers = {"Accept": call.accept, "User-Agent": "gpudetour"}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if (authorization := self._connection.authorization()) is not None:
            headers["Authorization"] = authorization
        return headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[T]):
    """A collection as it was at `version`, from where a watch continues."""

    version: str
    items: list[T]


class _Page(msgspec.Struct, Generic[T]):
    metadata: ListMeta
    #: Go writes an empty list as null.
    items: list[T] | None = None


class Stream:
    """The lines of a watch. `close` may be called from another thread and ends the iteration."""

    def __init__(self, response: urllib3.BaseHTTPResponse, *, idle_timeout: float) -> None:
        self._response = response
        # The socket is out of reach where the server closes after this answer; what waited for the
        # headers then waits for lines as well, and `close` goes by way of urllib3.
        self._sock: socket.socket | None = getattr(response.connection, "sock", None)
        if self._sock is not None:
            self._sock.settimeout(idle_timeout)

    def __iter__(self) -> Iterator[bytes]:
        """Yield whole lines; a line cut off by the end of the stream is not one."""
        rest = b""
        try:
            for chunk in self._response.stream(64 * 1024, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise IdleTimeout("watch was idle") from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # Closing the socket under a blocked read surfaces as any of these.
            raise ConnectionFailed(f"watch ended: {error}") from error
        finally:
            # Never back into the pool with half an answer: the next call would read the rest.
            self._response.close()

    def close(self) -> None:
        """Shut the socket down, so that a reader blocked on it wakes at once."""
        with suppress(OSError, ValueError, RuntimeError):  # each means that it is closed already
            if self._sock is not None:
                # Not SSLSocket.shutdown: it drops the TLS state that the reader is using.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            else:
                self._response.shutdown()


def _pool(connection: Connection, *, size: int) -> tuple[str, urllib3.HTTPConnectionPool]:
    """Return the path that all paths begin with, and the connections to the one server.

    There is no more to choose for a request, so urllib3's pool manager would be in the way: it
    takes a quarter of the time of a small call.
    """
    url = urllib3.util.parse_url(connection.server)
    if url.scheme == "http":
        plain = urllib3.HTTPConnectionPool(
            url.hostname or "", url.port, maxsize=size, retries=False
        )
        return url.path or "", plain
    return url.path or "", urllib3.HTTPSConnectionPool(
        url.hostname or "",
        url.port,
        maxsize=size,
        retries=False,
        ca_certs=connection.ca_file,
        cert_file=connection.client_cert_file,
        key_file=connection.client_key_file,
        cert_reqs="CERT_REQUIRED" if connection.verify else "CERT_NONE",
        server_hostname=connection.tls_server_name,
        assert_hostname=connection.tls_server_name,
    )


def _refusal(response: urllib3.BaseHTTPResponse) -> KubeError:
    data = response.data  # read also where the body was to be streamed
    try:
        status = decoder(Status).decode(data)
    except msgspec.DecodeError:
        status = Status(message=data[:_MAX_MESSAGE].decode(errors="replace"))
    wait = response.headers.get("Retry-After", "")
    return api_error(
        response.status,
        reason=status.reason or (response.reason or ""),
        message=status.message[:_MAX_MESSAGE],
        # The other form of the header, a date, is not used by API servers.
        retry_after=min(int(wait), _MAX_RETRY_AFTER) if re.fullmatch("[0-9]{1,9}", wait) else None,
    )

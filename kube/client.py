"""One pooled, thread-safe HTTP client for the API server; bytes in, bytes out, errors as classes.

No retries here: the caller knows whether a call may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload
from urllib.parse import urlencode

import msgspec
import urllib3

from kube.connection import Connection
from kube.errors import ConnectionFailed, KubeError, api_error
from kube.objects import Status

T = TypeVar("T")

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
#: The body is JSON, which is YAML too; the API server knows the type only by this name.
APPLY_PATCH = "application/apply-patch+yaml"

#: Seconds for one ordinary call; below kube-scheduler's patience with an extender.
DEFAULT_TIMEOUT = 10.0
#: Error texts of foreign servers are cut: they end in logs and Events.
_MAX_MESSAGE = 1024

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
        self._pool = urllib3.PoolManager(
            maxsize=pool_size,
            block=False,
            retries=False,
            ca_certs=connection.ca_file,
            cert_file=connection.client_cert_file,
            key_file=connection.client_key_file,
            cert_reqs="CERT_REQUIRED" if connection.verify else "CERT_NONE",
        )

    @overload
    def get(self, path: str, *, type: type[T], params: Params | None = None) -> T: ...
    @overload
    def get(self, path: str, *, params: Params | None = None) -> Any: ...
    def get(self, path: str, *, type: Any = Any, params: Params | None = None) -> Any:  # noqa: A002
        """Read one object (or one page of a list), decoded as `type`."""
        return self._call(_Call("GET", path, params=params), type=type)

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

    def delete(self, path: str, *, params: Params | None = None) -> Any:
        """DELETE one object."""
        return self._call(_Call("DELETE", path, params=params))

    def stream(self, path: str, *, params: Params, idle_timeout: float) -> Stream:
        """Open a watch; `idle_timeout` seconds without a byte end it as a failed connection."""
        timeout = urllib3.Timeout(connect=self._timeout, read=idle_timeout)
        return Stream(self._send(_Call("GET", path, params=params), timeout=timeout, preload=False))

    def _call(self, call: _Call, *, type: Any = Any) -> Any:  # noqa: A002
        response = self._send(call, timeout=urllib3.Timeout(self._timeout))
        try:
            return msgspec.json.decode(response.data, type=type)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"{call}: {error}") from error

    def _send(
        self, call: _Call, *, timeout: urllib3.Timeout, preload: bool = True
    ) -> urllib3.BaseHTTPResponse:
        url = self._connection.server + call.path
        if call.params:
            url += "?" + urlencode(call.params)
        headers = {"Accept": JSON, "User-Agent": "gpudetour"}
        if call.body is not None:
            headers["Content-Type"] = call.content_type
        if (authorization := self._connection.authorization()) is not None:
            headers["Authorization"] = authorization
        try:
            response = self._pool.request(
                call.method,
                url,
                body=call.body,
                headers=headers,
                timeout=timeout,
                preload_content=preload,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionFailed(f"{call}: {error}") from error
        if response.status >= 300:
            raise _refusal(response)
        return response


class Stream:
    """The lines of a watch. `close` may be called from another thread and ends the iteration."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        try:
            for chunk in self._response.stream(64 * 1024, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # Closing the socket under a blocked read surfaces as any of these.
            raise ConnectionFailed(f"watch ended: {error}") from error
        finally:
            self._response.release_conn()

    def close(self) -> None:
        """Shut the socket down, so that a reader blocked on it wakes at once."""
        self._response.shutdown()


def _refusal(response: urllib3.BaseHTTPResponse) -> KubeError:
    data = response.data  # read also where the body was to be streamed
    try:
        status = msgspec.json.decode(data, type=Status)
    except msgspec.DecodeError:
        status = Status(message=data[:_MAX_MESSAGE].decode(errors="replace"))
    wait = response.headers.get("Retry-After", "")
    return api_error(
        response.status,
        reason=status.reason or (response.reason or ""),
        message=status.message[:_MAX_MESSAGE],
        retry_after=float(wait) if wait.isdigit() else None,
    )

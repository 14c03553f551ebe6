"""Plain requests to the cluster's API server with the administrator's certificate.

Objects are dictionaries as they are on the wire. This is for setting up and looking; what watches
and how placement works is the product's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import urllib3

from localcluster.pki import KeyPair

Object = dict[str, Any]
PatchKind = Literal["merge", "json", "strategic"]

_CONTENT_TYPES: Mapping[PatchKind, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason


class ApiClient:
    """JSON requests over kept-alive connections; safe to use from several threads."""

    def __init__(self, server: str, *, ca_file: Path, credentials: KeyPair) -> None:
        self._server = server
        self._pool = urllib3.PoolManager(
            maxsize=16,
            ca_certs=str(ca_file),
            cert_file=str(credentials.certificate),
            key_file=str(credentials.key),
            retries=False,
            timeout=urllib3.Timeout(connect=5, read=60),
        )

    def get(self, path: str, **query: str) -> Object:
        """The object or list at `path`."""
        return self._json("GET", f"{path}?{urlencode(query)}" if query else path)

    def text(self, path: str) -> str:
        """What the server says at a path that is no object, `/readyz` for example."""
        return self._request("GET", path).decode()

    def create(self, path: str, body: Object) -> Object:
        """Create an object in the collection `path`, or post to a subresource."""
        return self._json("POST", path, body)

    def patch(self, path: str, body: Object | list[Object], *, kind: PatchKind = "merge") -> Object:
        """Change the object at `path` with a patch of that kind."""
        return self._json("PATCH", path, body, content_type=_CONTENT_TYPES[kind])

    def delete(self, path: str, *, grace_seconds: int | None = None) -> None:
        """Delete the object at `path`."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self._request("DELETE", path, options)

    def close(self) -> None:
        """Close the kept-alive connections."""
        self._pool.clear()

    def _json(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        *,
        content_type: str = "application/json",
    ) -> Object:
        answer = json.loads(self._request(method, path, body, content_type=content_type))
        if not isinstance(answer, dict):
            raise TypeError(f"{path} holds no object")
        return answer

    def _request(
        self,
        method: str,
        path: str,
        body: Object | list[Object] | None = None,
        *,
        content_type: str = "application/json",
    ) -> bytes:
        answer = self._pool.request(
            method,
            self._server + path,
            body=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, "Accept": "application/json"},
        )
        if answer.status >= 400:
            raise _error(answer.status, answer.data)
        return answer.data


def _error(status: int, content: bytes) -> ApiError:
    try:
        told = json.loads(content)
        return ApiError(status, str(told["reason"]), str(told["message"]))
    except (ValueError, KeyError, TypeError):
        return ApiError(status, "Unknown", content[:300].decode("utf-8", errors="replace"))

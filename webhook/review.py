"""AdmissionReview v1 in and out (k8s.io/api/admission/v1), and the JSON patch inside the answer.

Strict: what cannot be understood is refused with a text that says why, and never half understood.
Knows nothing of what becomes of a pod.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from kube.wire import decoder
from webhook.patch import operations
from webhook.wording import faults_to_tell, warnings_to_tell

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"

#: The API server's are UUIDs; only so much is ever echoed.
_MAX_UID = 128
_MAX_KIND = 256


class BadReview(ValueError):
    """The body is no review that can be answered: there is not even a uid to echo."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the API server asks. The objects are as they came, None where there was none."""

    uid: str
    kind: str
    operation: str
    subresource: str
    namespace: str
    name: str
    dry_run: bool
    object: dict[str, Any] | None
    old_object: dict[str, Any] | None


class _Wire(msgspec.Struct, rename="camel"):
    pass


class _Kind(_Wire):
    group: str
    version: str
    kind: str


class _Request(_Wire):
    uid: str
    kind: _Kind
    operation: str
    sub_resource: str = ""
    namespace: str = ""
    name: str = ""
    dry_run: bool | None = None
    object: dict[str, Any] | None = None
    old_object: dict[str, Any] | None = None


class _Review(_Wire):
    api_version: str
    kind: str
    request: _Request


class _Status(_Wire):
    message: str
    reason: str
    code: int
    status: str = "Failure"


class _Response(_Wire, omit_defaults=True):
    uid: str
    allowed: bool
    patch: str | None = None
    patch_type: str | None = None
    status: _Status | None = None
    warnings: list[str] | None = None


class _Answer(_Wire):
    response: _Response
    api_version: str = API_VERSION
    kind: str = KIND


def decode(body: bytes) -> Request:
    """Read a review; raises `BadReview` with a text for whoever sent it."""
    try:
        review = decoder(_Review).decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadReview(f"not an {KIND} of {API_VERSION}: {error}") from error
    if (review.api_version, review.kind) != (API_VERSION, KIND):
        raise BadReview(
            f"this webhook answers {KIND} of {API_VERSION} only, "
            f"not {review.kind[:64]!r} of {review.api_version[:64]!r}"
        )
    request = review.request
    if not 0 < len(request.uid) <= _MAX_UID:
        raise BadReview(f"request.uid must have 1 to {_MAX_UID} characters")
    group = f"{request.kind.group}/" if request.kind.group else ""
    return Request(
        uid=request.uid,
        kind=f"{group}{request.kind.version}/{request.kind.kind}"[:_MAX_KIND],
        operation=request.operation,
        subresource=request.sub_resource,
        namespace=request.namespace,
        name=request.name,
        dry_run=bool(request.dry_run),
        object=request.object,
        old_object=request.old_object,
    )


def allow(
    request: Request, changed: dict[str, Any] | None = None, *, warnings: tuple[str, ...] = ()
) -> bytes:
    """Answer that the object may be stored, as `changed` where that is given and differs."""
    response = _Response(uid=request.uid, allowed=True)
    if changed is not None and (patch := operations(request.object, changed)):
        response.patch = base64.b64encode(msgspec.json.encode(patch)).decode()
        response.patch_type = "JSONPatch"
    if warnings:
        response.warnings = list(warnings_to_tell(warnings))
    return msgspec.json.encode(_Answer(response=response))


def deny(request: Request, *faults: str) -> bytes:
    """Answer that the object must not be stored; kubectl and controllers show the faults."""
    status = _Status(message="; ".join(faults_to_tell(faults)), reason="Invalid", code=422)
    return msgspec.json.encode(
        _Answer(response=_Response(uid=request.uid, allowed=False, status=status))
    )

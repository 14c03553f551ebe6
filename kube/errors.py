"""What can go wrong when talking to the API server, split by who can do something about it."""

from __future__ import annotations


class KubeError(Exception):
    """Base of everything that this package raises on purpose."""


class ConnectionFailed(KubeError):
    """No answer: refused, cut, timed out, or not verifiable by TLS."""


class IdleTimeout(ConnectionFailed):
    """An open watch brought nothing, not even a bookmark, for as long as we wait."""


class ApiError(KubeError):
    """The API server answered, and refused.

    `status` is the HTTP code, `reason` the machine-readable one of metav1.Status, `retry_after`
    seconds where the server asked for patience.
    """

    def __init__(
        self, status: int, *, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Unauthorized(ApiError):
    """401: the credentials are not known or no longer valid."""


class Forbidden(ApiError):
    """403: RBAC or a policy says no."""


class NotFound(ApiError):
    """404: no such object, or no such API."""


class Conflict(ApiError):
    """409: it exists already, or it changed since it was read."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class Invalid(ApiError):
    """422: the object does not pass validation or an admission policy."""


class TooManyRequests(ApiError):
    """429: come back after `retry_after`."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def api_error(
    status: int, *, reason: str, message: str, retry_after: float | None = None
) -> ApiError:
    """Return the error class that belongs to an HTTP status."""
    kind = _BY_STATUS.get(status, ApiError)
    return kind(status, reason=reason, message=message, retry_after=retry_after)

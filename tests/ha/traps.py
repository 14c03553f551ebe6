"""Which requests are kept on their way to the API server or back, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Where(Enum):
    """On which side of the API server's work a request is kept."""

    BEFORE = "the API server has not seen it"
    AFTER = "the API server has answered, and nobody has heard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one request asks for, and on whose connection it came."""

    method: str
    path: str
    watch: bool = False
    dry_run: bool = False


Wanted = Callable[[Request], bool]


def config_map(request: Request) -> bool:
    """The first step of a bind that others can see."""
    records_of_usage = "/namespaces/gpudetour-system/" in request.path
    return (
        request.method == "POST" and request.path.endswith("/configmaps") and not records_of_usage
    )


def binding(request: Request) -> bool:
    """The second and last one."""
    return request.method == "POST" and request.path.endswith("/binding") and not request.dry_run


def renewal(request: Request) -> bool:
    """How a leader stays one."""
    return request.method == "PUT" and "/leases/" in request.path


def watch(request: Request) -> bool:
    """A watch of anything."""
    return request.watch


class Trap:
    """Keeps the first `count` requests of a kind until the test says what becomes of them."""

    def __init__(self, wanted: Wanted, where: Where, count: int) -> None:
        self.where = where
        self._wanted = wanted
        self._count = count
        self._changed = threading.Condition()  # guards the rest
        self._caught: list[Request] = []
        self._passes: bool | None = None

    def wait(self, count: int | None = None, *, timeout: float = 20.0) -> list[Request]:
        """Return what was caught once it is `count`, or as much as may be caught."""
        wanted = self._count if count is None else count
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._caught) >= wanted, timeout):
                raise AssertionError(f"caught {self._caught}, not {wanted} requests")
            return list(self._caught)

    def pass_on(self) -> None:
        """Let all go their way; later ones are not kept any more."""
        self._decide(passes=True)

    def drop(self) -> None:
        """Cut the connections of all; they never arrive. Later ones are not kept any more."""
        self._decide(passes=False)

    def keeps(self, request: Request) -> bool:
        """Take a request in, if it is one of those that are wanted."""
        with self._changed:
            full = self._passes is not None or len(self._caught) >= self._count
            if full or not self._wanted(request):
                return False
            self._caught.append(request)
            self._changed.notify_all()
            return True

    def fate(self) -> bool:
        """Wait until the test has decided; tell whether what was kept goes on."""
        with self._changed:
            self._changed.wait_for(lambda: self._passes is not None)
            return bool(self._passes)

    def _decide(self, *, passes: bool) -> None:
        with self._changed:
            if self._passes is None:
                self._passes = passes
            self._changed.notify_all()

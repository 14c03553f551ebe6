"""Creates pods that ask for GPUs and ends those that were bound, over and over."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import urllib3

from localcluster.api import ApiClient, ApiError
from tests.ha.auditor import Auditor
from tests.ha.books import Record

Object = dict[str, Any]

#: Pods that may live at a time. They ask for fewer GPUs than there are, but not for much fewer.
_LIVING = 80
#: Pods a second that are created in any case, so that whoever can bind always has something to.
_TRICKLE = 3.0
#: Seconds that a pod holds its GPUs.
_LIFE = (0.1, 1.0)
#: One pod in so many asks for two GPUs; as many end as a Job does, and as many hesitate to go.
_SOME = 6
_THREADS = 3
#: Seconds: how closely the load keeps to its times, and how much it makes up for.
_STEP = 0.01
_CATCH_UP = 0.2


@dataclass(order=True)
class _Due:
    at: float
    step: Callable[[], None] = field(compare=False)


class Load:
    """Works while its context lasts and `running` says so; only bound pods are ended."""

    def __init__(self, api: ApiClient, auditor: Auditor, namespace: str) -> None:
        self._api = api
        self._auditor = auditor
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._numbers = itertools.count()
        self._random = random.Random(7)  # noqa: S311 - no secrets
        self._changed = threading.Condition()  # guards the rest
        self._rate = 0.0
        self._next = 0.0
        self._limit = _LIVING
        self._ending = True
        self._busy = 0
        self._creating = 0
        self._stop = False
        self._seen = 0
        self._due: list[_Due] = []
        #: UIDs that the API server told.
        self.created: list[str] = []
        self._threads = [
            threading.Thread(target=target, name="load", daemon=True)
            for target in [self._create] * _THREADS + [self._end] * _THREADS
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def running(self, *, rate: float) -> Iterator[None]:
        """Create so many pods a second; at the end none any more, but go on ending them."""
        with self._changed:
            self._rate, self._next = rate, time.monotonic()
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._rate = 0.0
                self._changed.wait_for(lambda: not self._creating)

    @contextmanager
    def nothing_ends(self) -> Iterator[Callable[[], None]]:
        """Keep all pods: while the auditor's watch is cut, no GPU may change hands unseen.

        Each call of what is yielded lets a quarter of the pods that may live at a time be created
        more, twice in all: so there is something to bind, however long the steps before it took.
        """
        with self._changed:
            self._limit = _LIVING // 2
            while self._auditor.living() > self._limit:
                self._changed.wait(_STEP)
            self._ending = False
            self._changed.wait_for(lambda: not self._busy)

        def more() -> None:
            with self._changed:
                self._limit += _LIVING // 4
                self._changed.notify_all()

        try:
            yield more
        finally:
            with self._changed:
                self._ending = True
                self._limit = _LIVING
                self._changed.notify_all()

    def _create(self) -> None:
        while self._turn_to_create():
            number = next(self._numbers)
            pod = _pod(f"pod-{number:05d}", gpus=2 if number % _SOME == 0 else 1)
            try:
                # Where no answer comes it may be created all the same: then the auditor sees it.
                with suppress(ApiError, urllib3.exceptions.HTTPError):
                    self.created.append(self._api.create(self._pods, pod)["metadata"]["uid"])
            finally:
                with self._changed:
                    self._creating -= 1
                    self._changed.notify_all()

    def _turn_to_create(self) -> bool:
        """Wait until another pod may be created; False at the end."""
        with self._changed:
            while not self._stop:
                now = time.monotonic()
                crowded = self._auditor.living() >= self._limit
                if crowded and not self._ending:
                    self._changed.wait(_STEP)
                elif self._rate and now >= self._next:
                    rate = min(self._rate, _TRICKLE) if crowded else self._rate
                    # What was missed is made up for, a little.
                    self._next = max(self._next, now - _CATCH_UP) + 1 / rate
                    self._creating += 1
                    return True
                else:
                    self._changed.wait(max(_STEP, self._next - now) if self._rate else None)
        return False

    def _end(self) -> None:
        while (step := self._turn_to_end()) is not None:
            step()
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _turn_to_end(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stop:
                self._note_bound()
                now = time.monotonic()
                if self._ending and self._due and self._due[0].at <= now:
                    self._busy += 1
                    return heapq.heappop(self._due).step
                self._changed.wait(_STEP)
        return None

    def _note_bound(self) -> None:
        new = self._auditor.bound_after(self._seen)
        self._seen += len(new)
        for record in new:
            life = self._random.uniform(*_LIFE)
            heapq.heappush(self._due, _Due(record.bound + life, self._ending_of(record)))

    def _ending_of(self, record: Record) -> Callable[[], None]:
        path = f"{self._pods}/{record.name}"

        def remove() -> None:
            self._attempt(lambda: self._api.delete(path, grace_seconds=0))

        def then_remove(first: Callable[[], object]) -> None:
            self._attempt(first)
            self._later(_LIFE[0], remove)

        # As a Job ends, as a pod that is deleted and takes its time, and at once.
        completed: Object = {"status": {"phase": "Succeeded"}}
        match self._random.randrange(_SOME):
            case 0:
                return lambda: then_remove(lambda: self._api.patch(f"{path}/status", completed))
            case 1:
                return lambda: then_remove(lambda: self._api.delete(path, grace_seconds=30))
            case _:
                return remove

    def _attempt(self, step: Callable[[], object]) -> None:
        """Do one step towards the end of a pod; again later if the API server is away."""
        try:
            step()
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return
        except urllib3.exceptions.HTTPError:
            pass
        else:
            return
        self._later(_LIFE[1], lambda: self._attempt(step))

    def _later(self, seconds: float, step: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, _Due(time.monotonic() + seconds, step))


def _pod(name: str, *, gpus: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": "example.org/training",
                    "resources": {"limits": {"nvidia.com/gpu": gpus}},
                }
            ],
        },
    }

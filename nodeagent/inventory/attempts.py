"""Keeps a driver that hangs from freezing its caller: a broken one may never return from a call.

A call that hangs cannot be ended, so each attempt runs in a thread of its own and is left alone
when it stands still. Where it stands still at one GPU, the next attempt passes that GPU over: one
bad card does not hide the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

#: How people are told of a driver that hangs; since when follows.
NO_ANSWER = "NVML has not answered since"

_Result = TypeVar("_Result")


class HangingError(Exception):
    """The driver does not answer as a whole, since this time."""

    def __init__(self, since: datetime) -> None:
        super().__init__(no_answer(since))
        self.since = since


def no_answer(since: datetime) -> str:
    """What people are told of a driver, or of a GPU, that hangs."""
    return f"{NO_ANSWER} {since:%Y-%m-%dT%H:%M:%SZ}"


class Progress:
    """How far an attempt has come; written by its thread, read by the one that waits."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.starting = True
        self.index: int | None = None
        self.at = clock()

    def note(self, index: int | None) -> None:
        """NVML is up, and now comes the GPU of this index, or what is about none."""
        self.starting = False
        self.index = index
        self.at = self._clock()


@dataclass(slots=True)
class _Attempt(Generic[_Result]):
    began: datetime
    progress: Progress
    done: threading.Event = field(default_factory=threading.Event)
    result: _Result | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds without progress after which an attempt hangs: in a call, and while NVML starts,
    which takes long where the driver must wake all GPUs up first.
    """

    call: float = 2.5
    starting: float = 30.0


class Attempts(Generic[_Result]):
    """Runs the same work again and again, for one caller at a time."""

    def __init__(self, patience: Patience, *, now: Callable[[], datetime]) -> None:
        self._patience = patience
        self._now = now
        self._clock = time.monotonic
        self._hanging: list[_Attempt[_Result]] = []

    def run(
        self, work: Callable[[Progress, Collection[int]], _Result]
    ) -> tuple[_Result, dict[int, datetime]]:
        """Return what the work answers, and since when each GPU hangs that it had to pass over.

        Raises what it raises, and `HangingError` where it stands still anywhere but at a GPU.
        """
        self._hanging = [attempt for attempt in self._hanging if not attempt.done.is_set()]
        skip = {a.progress.index: a.began for a in self._hanging if a.progress.index is not None}
        while not (stuck := [a for a in self._hanging if a.progress.index is None]):
            attempt = self._start(work, skip)
            if self._finished(attempt):
                return _outcome(attempt), skip
            self._hanging.append(attempt)
            if attempt.progress.index is not None:
                skip = {**skip, attempt.progress.index: attempt.began}
        raise HangingError(stuck[0].began)

    def _start(
        self, work: Callable[[Progress, Collection[int]], _Result], skip: Collection[int]
    ) -> _Attempt[_Result]:
        attempt: _Attempt[_Result] = _Attempt(self._now(), Progress(self._clock))

        def run() -> None:
            try:
                attempt.result = work(attempt.progress, skip)
            except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
                attempt.error = error
            finally:
                attempt.done.set()

        threading.Thread(target=run, name="inventory", daemon=True).start()
        return attempt

    def _finished(self, attempt: _Attempt[_Result]) -> bool:
        """Wait for the end of an attempt as long as it makes progress."""
        while True:
            progress = attempt.progress
            most = self._patience.starting if progress.starting else self._patience.call
            left = progress.at + most - self._clock()
            if left <= 0:
                return attempt.done.is_set()
            # Not longer: NVML may be up in a moment, and the shorter patience hold.
            if attempt.done.wait(min(left, self._patience.call)):
                return True


def _outcome(attempt: _Attempt[_Result]) -> _Result:
    if attempt.error is not None:
        raise attempt.error
    if attempt.result is None:
        raise RuntimeError("a finished attempt has neither a result nor an error")
    return attempt.result

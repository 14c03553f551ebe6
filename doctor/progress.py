"""Tells a person who waits what is being read; silent while nobody had to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Seconds that people wait without asking themselves whether it hangs.
PATIENCE = 2.0


class Progress:
    """Names the step under way once reading takes longer than `patience`, then each next step."""

    def __init__(self, tell: Callable[[str], None], *, patience: float = PATIENCE) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._step = ""
        self._is_late = False
        self._timer = threading.Timer(patience, self._late)
        self._timer.daemon = True

    def step(self, name: str) -> None:
        """Begin a step."""
        with self._lock:
            self._step = name
            if self._is_late:
                self._tell(f"reading {name} …")

    def _late(self) -> None:
        with self._lock:
            self._is_late = True
            self._tell(f"still reading: {self._step} …")

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._timer.join()

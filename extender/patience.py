"""How long filter may wait for the watch to catch up with the scheduler's.

kube-scheduler retries a waiting pod the moment that its own watch shows another pod gone. If ours
is a few milliseconds behind, the pod is turned away from the GPU that was just given back, and
nothing calls for another try. So before "all in use" is said, a moment may be waited. The scheduler
waits with us in its one loop, which is why the waiting is kept to a small part of the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: The part of the time that may be spent waiting in the long run.
SHARE = 0.05


class Patience:
    """Seconds that may be waited: at most `most` at once, earned by time that passes."""

    def __init__(self, most: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()  # guards the next two
        self._left = most
        self._counted = clock()

    def left(self) -> float:
        """Return how many seconds may be waited now."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + SHARE * (now - self._counted))
            self._counted = now
            return max(0.0, self._left)

    def spend(self, seconds: float) -> None:
        """Count seconds that were waited."""
        with self._lock:
            self._left -= seconds

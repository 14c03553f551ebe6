"""How long to wait after failures that follow each other. Does not wait itself."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Delays in seconds that double up to `cap`, each drawn from the upper half of its range.

    Half of the range is random so that clients cut off together do not come back together.
    """

    def __init__(
        self,
        *,
        first: float = 0.5,
        cap: float = 30.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._first = first
        self._cap = cap
        self._uniform = uniform
        self._ceiling = first

    def next(self) -> float:
        """Return the delay that this failure earns, and prepare a longer one."""
        ceiling = self._ceiling
        self._ceiling = min(ceiling * 2, self._cap)
        return self._uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        """Start again from the shortest delay: something worked."""
        self._ceiling = self._first

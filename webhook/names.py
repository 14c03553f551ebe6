"""Names for the ConfigMaps that will tell pods their devices."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gpus.annotations import DEVICES_CONFIG_MAP_PREFIX

#: Bytes of a name, which takes two digits for each, and names that are made at once.
_SIZE = 10
_BLOCK = 256


class Names:
    """Calling it returns a name that no pod had before and no user can guess. Thread-safe.

    `randomness` gives so many bytes, as `os.urandom` does. It is asked for many names at once:
    asking the system lets other threads go first, which took a tenth of an answer under load.
    """

    def __init__(self, randomness: Callable[[int], bytes]) -> None:
        self._randomness = randomness
        self._lock = threading.Lock()  # guards the next one
        self._ready: list[str] = []

    def __call__(self) -> str:
        """Return the next name."""
        with self._lock:
            if not self._ready:
                digits = self._randomness(_SIZE * _BLOCK).hex()
                step = 2 * _SIZE
                self._ready = [digits[at : at + step] for at in range(0, len(digits), step)]
            return DEVICES_CONFIG_MAP_PREFIX + self._ready.pop()

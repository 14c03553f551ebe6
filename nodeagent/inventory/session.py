"""NVML between nvmlInit and nvmlShutdown, shared by the reader and by the thread that waits for
events.

NVML lists GPUs at nvmlInit only, and a new driver needs its new library, so the reader takes NVML
down and up again. That may happen only while nobody else is inside.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from nodeagent.inventory import binding
from nodeagent.inventory.advice import explain
from nodeagent.inventory.library import LibraryFile, find_library

#: Seconds that users of NVML get to leave before it is restarted; one that hangs never leaves.
_LEAVE = 5.0

log = structlog.get_logger()


class SessionDownError(Exception):
    """NVML is not up; it comes up with the next successful `refresh`."""


class Session:
    """NVML of the library below one driver root.

    Invariant: while a `use` block runs, NVML stays up and its list of GPUs the same. pynvml is
    global to the process, so there is one session a process.
    """

    def __init__(self, driver_root: Path) -> None:
        self._driver_root = driver_root
        self._changed = threading.Condition()
        self._users = 0
        self._restarting = False
        self._up = False
        self._loads = 0
        self._library: LibraryFile | None = None
        #: Counts the times that NVML came up.
        self.generation = 0

    @property
    def library(self) -> LibraryFile | None:
        """The library that is loaded."""
        return self._library

    @property
    def wanted_back(self) -> bool:
        """Whether users should leave soon, because NVML is to be restarted."""
        return self._restarting

    @contextmanager
    def use(self) -> Iterator[int]:
        """Keep NVML up for a block, which gets the generation; raises `SessionDownError`."""
        with self._changed:
            if self._restarting or not self._up:
                raise SessionDownError
            self._users += 1
        try:
            yield self.generation
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def refresh(self, *, restart: bool) -> None:
        """Bring NVML up if it is down, and anew if its file changed or `restart` asks for it.

        Waits until users have left; where one does not, NVML stays as it is. Raises
        `InventoryError`; NVML is then down.
        """
        library = find_library(self._driver_root)
        if self._up and library == self._library and not restart:
            return
        with self._exclusive() as alone:
            if not alone:
                log.warning("NVML cannot be restarted: a call of it hangs")
                return
            self._shut_down()
            if library != self._library:
                self._load(library)
            self._start()

    def close(self) -> None:
        """Take NVML down."""
        with self._exclusive() as alone:
            if alone:
                self._shut_down()

    def wait_until_up(self, timeout: float) -> None:
        """Wait until NVML is up and can be used, or so many seconds have passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._up and not self._restarting, timeout)

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Let nobody in for a block, which is told whether all others have left."""
        with self._changed:
            self._restarting = True
            alone = self._changed.wait_for(lambda: self._users == 0, _LEAVE)
        try:
            yield alone
        finally:
            with self._changed:
                self._restarting = False
                self._changed.notify_all()

    def _shut_down(self) -> None:
        if not self._up:
            return
        self._up = False
        # Whatever it answers, the next nvmlInit tells whether NVML works.
        with suppress(binding.NvmlError):
            binding.call("nvmlShutdown")

    def _load(self, library: LibraryFile) -> None:
        binding.load(library, attempt=self._loads)
        self._loads += 1
        self._library = library
        log.info("loaded NVIDIA's library", path=str(library.path))

    def _start(self) -> None:
        try:
            binding.call("nvmlInit")
        except binding.NvmlError as error:
            raise explain(error) from error
        self._up = True
        self.generation += 1

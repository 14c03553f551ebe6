"""Showing which part is obtained, by which way and for how long.

A terminal gets a live line, anything else plain lines: one at each change, and at least one every
ten seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console

_INTERVAL = 10.0


class Progress(Protocol):
    """Where work on parts is reported."""

    def task(self, what: str) -> AbstractContextManager[Callable[[str], None]]:
        """Report `what` as running until the block ends; the given function changes its detail."""

    def note(self, text: str) -> None:
        """Report something that happened."""


class SilentProgress:
    """Reports nothing."""

    @contextmanager
    def task(self, what: str) -> Iterator[Callable[[str], None]]:
        """Ignore `what`."""
        del what
        yield lambda _detail: None

    def note(self, text: str) -> None:
        """Ignore `text`."""


class PlainProgress:
    """Lines of text for logs: start, every `interval` seconds, end."""

    def __init__(self, stream: TextIO, *, interval: float = _INTERVAL) -> None:
        self._stream = stream
        self._interval = interval

    @contextmanager
    def task(self, what: str) -> Iterator[Callable[[str], None]]:
        """Print `what` now, again every interval with its detail and age in seconds, and its
        outcome.
        """
        started = time.monotonic()
        details = [""]
        ended = threading.Event()

        def remind() -> None:
            while not ended.wait(self._interval):
                self.note(_line(what, detail=details[0], started=started))

        self.note(f"{what} ...")
        reminder = threading.Thread(target=remind, daemon=True, name="progress")
        reminder.start()
        outcome = "failed"
        try:
            yield lambda detail: details.__setitem__(0, detail)
            outcome = "done"
        finally:
            ended.set()
            reminder.join()
            self.note(_line(what, detail=outcome, started=started))

    def note(self, text: str) -> None:
        """Print `text` as a line of its own."""
        print(text, file=self._stream, flush=True)


class TerminalProgress:
    """One live line with a spinner, and a line that stays for each finished task."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show `what` with a spinner, its detail and its age in seconds."""
        started = time.monotonic()
        details = [""]
        ended = threading.Event()
        with self._console.status(what) as status:

            def refresh() -> None:
                while not ended.wait(0.5):
                    status.update(_line(what, detail=details[0], started=started))

            refresher = threading.Thread(target=refresh, daemon=True, name="progress")
            refresher.start()
            outcome = "failed"
            try:
                yield lambda detail: details.__setitem__(0, detail)
                outcome = "done"
            finally:
                ended.set()
                refresher.join()
        self.note(_line(what, detail=outcome, started=started))

    def note(self, text: str) -> None:
        """Print `text` above the live line."""
        self._console.print(text, markup=False, highlight=False)


def progress_on(stream: TextIO) -> Progress:
    """A live display where `stream` is a terminal, plain lines elsewhere."""
    if stream.isatty():
        return TerminalProgress(Console(file=stream))
    return PlainProgress(stream)


def _line(what: str, *, detail: str, started: float) -> str:
    elapsed = int(time.monotonic() - started)
    return f"{what}: {detail + ', ' if detail else ''}{elapsed // 60}:{elapsed % 60:02d}"

"""Runs a program of ours as a process and reads what it logs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

#: Seconds for anything that a healthy process does at once.
PATIENCE = 60.0


class Process:
    """A process whose stderr is JSON lines; every line is kept."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.records: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, event: str, *, within: float = PATIENCE, **keys: Any) -> dict[str, Any]:
        """Return the first record with that event and these keys, as soon as there is one."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **keys}
            return next((r for r in self.records if wanted.items() <= r.items()), None)

        with self._arrived:
            record = self._arrived.wait_for(found, within)
        assert record is not None, f"no {event!r} among {self.records}"
        return record

    def port(self, event: str = "listening") -> int:
        return int(self.wait_for(event)["port"])

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        code = self.popen.wait(PATIENCE)
        self._reader.join()
        return code

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.popen.poll() is None:
            self.terminate()
            try:
                self.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self.exit_code()
        if self.popen.stderr is not None:
            self.popen.stderr.close()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self._arrived:
                self.records.append(_record(line))
                self._arrived.notify_all()


@contextmanager
def running(*command: str, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run `python -m COMMAND` until the block ends."""
    popen = subprocess.Popen(
        [sys.executable, "-m", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    process = Process(popen)
    try:
        yield process
    finally:
        process.end()


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {"event": "", "text": line}
    return record if isinstance(record, dict) else {"event": "", "text": line}

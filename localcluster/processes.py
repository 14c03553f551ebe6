"""Starting, watching and stopping processes, so that any later run can stop what an earlier one
started.

Which processes and with which arguments is the business of the modules that use this one.
Invariant: a process exists only while its record does. The record is written by the new process
itself before it becomes the program, so that there is no moment at which a killed parent leaves an
unknown child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.processtable import Process, parse_stat, process, processes
from localcluster.waiting import WaitedTooLong, until

# $0: record, $1: grace in seconds; then the program. A shell keeps its process id through exec.
_RECORD_THEN_RUN = """
read -r stat < "/proc/$$/stat"
printf '%s\\n%s\\n' "$1" "$stat" > "$0.new" && mv "$0.new" "$0" || exit 1
shift
exec "$@"
"""
_TAIL_LINES = 15

ENCLOSURE = "enclosure"
"""The process whose network and mounts all those share that are started while it runs."""


class ProcessDied(Exception):
    """A process ended by itself; the text holds its last log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    name: str
    grace: float
    leader: Process


class Processes:
    """The processes of one state folder: records in `run`, output in `logs`."""

    def __init__(self, *, run: Path, logs: Path, environment: Mapping[str, str]) -> None:
        self._run = run
        self.logs = logs
        """The folder with the output of all processes."""
        self._environment = dict(environment)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        grace: float = 5.0,
        inherited: int | None = None,
        outside: bool = False,
    ) -> int:
        """Start a program in its own session and give its process id.

        `env` is added to the inherited environment. `grace` is how many seconds it gets between
        SIGTERM and SIGKILL; 0 for programs whose state is thrown away anyway. `inherited` is a file
        descriptor that stays open in it and its children. `outside` keeps it out of the enclosure
        where there is one.
        """
        if self.alive(name):
            raise ValueError(f"a process named {name} is running; stop it first")
        self._run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        record = self._path(name)
        record.unlink(missing_ok=True)
        command = [*([] if outside else self._entering()), *map(str, argv)]
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", _RECORD_THEN_RUN, str(record), str(grace), *command],
                env={**self._environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if inherited is None else (inherited,),
            )
        self._children[name] = child
        until(
            lambda: record.exists() or child.poll() is not None,
            timeout=10,
            what=f"start of {name}",
            interval=0.002,
        )
        self.check(name)
        return child.pid

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a running process and everything in its session."""
        record = self._read(name)
        if record is None or not _signal_session(record.leader, number):
            raise ValueError(f"no process named {name} is running")

    def stop(self, *names: str) -> None:
        """Stop the named processes and everything in their sessions, the last started first."""
        self._stop([record for record in self._records() if record.name in names])

    def stop_all(self) -> None:
        """Stop every process of this state folder, also those that another run started."""
        self._stop(self._records())
        for name in self._children:
            self._collect(name)

    def names(self) -> list[str]:
        """All recorded processes, in the order of their start."""
        return [record.name for record in self._records()]

    def alive(self, name: str) -> bool:
        """Whether the process that was started under that name still runs."""
        return self.pid(name) is not None

    def pid(self, name: str) -> int | None:
        """The process id of a running process, or None."""
        self._collect(name)
        record = self._read(name)
        if record is None:
            return None
        return record.leader.pid if _still(record.leader) else None

    def check(self, *names: str) -> None:
        """Raise `ProcessDied` if one of the named processes, or of all where none is named, has
        ended by itself.
        """
        for name in names or self.names():
            if not self.alive(name):
                code = self._collect(name)
                ending = "" if code is None else f" with status {code}"
                raise ProcessDied(
                    f"{name} ended{ending}; the last lines of {self.log(name)}:\n{self.tail(name)}"
                )

    def wait_ready(self, name: str, ready: Callable[[], bool], *, timeout: float) -> None:
        """Wait until `ready` says so; fail with the last log lines when the process ends or time is
        up.
        """

        def probe() -> bool:
            self.check(name)
            return ready()

        try:
            until(probe, timeout=timeout, what=f"{name} ready")
        except WaitedTooLong as error:
            raise WaitedTooLong(f"{error}; its last log lines:\n{self.tail(name)}") from None

    def log(self, name: str) -> Path:
        """The file with the output of a process."""
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = _TAIL_LINES) -> str:
        """The last lines of a process's output."""
        try:
            text = self.log(name).read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def _entering(self) -> list[str]:
        """The words before a command that make it run in the enclosure, if there is one."""
        pid = self.pid(ENCLOSURE)
        if pid is None:
            return []
        return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt", "--"]

    def _path(self, name: str) -> Path:
        return self._run / f"{name}.process"

    def _read(self, name: str) -> _Record | None:
        try:
            grace, stat = self._path(name).read_text(errors="replace").splitlines()[:2]
            return _Record(name=name, grace=float(grace), leader=parse_stat(stat))
        except (OSError, ValueError, IndexError):
            return None

    def _records(self) -> list[_Record]:
        found = (self._read(path.stem) for path in self._run.glob("*.process"))
        return sorted(
            (record for record in found if record is not None),
            key=lambda record: record.leader.started,
        )

    def _stop(self, records: Iterable[_Record]) -> None:
        for record in sorted(records, key=lambda record: -record.leader.started):
            if record.grace > 0 and _signal_session(record.leader, signal.SIGTERM):
                deadline = time.monotonic() + record.grace
                while time.monotonic() < deadline and self._members(record):
                    time.sleep(0.01)
            while self._members(record):
                _signal_session(record.leader, signal.SIGKILL)
                time.sleep(0.01)
            self._path(record.name).unlink(missing_ok=True)
            child = self._children.pop(record.name, None)
            if child is not None:
                child.wait()

    def _members(self, record: _Record) -> list[Process]:
        self._collect(record.name)
        return _session_of(record.leader)

    def _collect(self, name: str) -> int | None:
        child = self._children.get(name)
        return None if child is None else child.poll()


def _still(leader: Process) -> bool:
    now = process(leader.pid)
    return now is not None and now.started == leader.started and not now.ended


def _session_of(leader: Process) -> list[Process]:
    """The running members of a session, empty where its number belongs to somebody else by now."""
    now = process(leader.pid)
    if now is not None and now.started != leader.started:
        return []
    return [member for member in processes() if member.session == leader.pid]


def _signal_session(leader: Process, number: signal.Signals) -> bool:
    members = _session_of(leader)
    for member in members:
        try:
            os.kill(member.pid, number)
        except ProcessLookupError:
            continue
    return bool(members)

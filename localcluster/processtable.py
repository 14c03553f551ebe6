"""Reading processes from /proc. Nothing is signalled or started here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process as the kernel names it; a process id alone may be used again by another one."""

    pid: int
    name: str
    session: int
    started: int
    """Clock ticks after boot."""
    ended: bool
    """Dead, but not yet collected by its parent."""


def parse_stat(line: str) -> Process:
    """One line of /proc/PID/stat (proc(5)); the name in parentheses may hold anything."""
    head, _, tail = line.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    return Process(
        pid=int(pid),
        name=name,
        session=int(fields[3]),
        started=int(fields[19]),
        ended=fields[0] in "ZX",
    )


def process(pid: int) -> Process | None:
    """The process with that id, or None."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (OSError, ValueError, IndexError):
        return None


def processes() -> Iterator[Process]:
    """All running processes; those that end meanwhile are left out."""
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            found = process(int(folder.name))
            if found is not None and not found.ended:
                yield found


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty where it is gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []

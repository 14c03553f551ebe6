"""What processes use, read from /proc. A gunicorn parent and its worker count as one process."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from localcluster.processes import Processes
from localcluster.processtable import processes

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resident memory in bytes, seconds of CPU since the start (proc(5)).

    A forked worker shares pages with its parent, and those count once: of `anonymous` memory, which
    nobody else can share, each has its proportional part; the pages of `files` are the same ones.
    """

    anonymous: int = 0
    files: int = 0
    cpu: float = 0.0

    @property
    def memory(self) -> int:
        """All resident memory."""
        return self.anonymous + self.files

    def __add__(self, other: Usage) -> Usage:
        """Both together, as parent and child."""
        return Usage(
            anonymous=self.anonymous + other.anonymous,
            files=max(self.files, other.files),
            cpu=self.cpu + other.cpu,
        )


def usage_of(running: Processes) -> dict[str, Usage]:
    """What each process of a cluster uses, by the name under which it was started."""
    leaders = {running.pid(name): name for name in running.names()}
    found: dict[str, Usage] = {}
    for member in processes():
        name = leaders.get(member.session)
        used = _usage(member.pid) if name is not None else None
        if name is not None and used is not None:
            found[name] = found[name] + used if name in found else used
    return found


def _usage(pid: int) -> Usage | None:
    try:
        rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
        status = (_PROC / str(pid) / "status").read_text()
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:  # ended meanwhile
        return None
    # After the name in parentheses, which may hold anything: utime and stime (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return Usage(
        anonymous=_kibi("Pss_Anon", rollup) + _kibi("Pss_Shmem", rollup),
        files=_kibi("RssFile", status),
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
    )


def _kibi(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0

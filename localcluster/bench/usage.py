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
    """Resident memory in bytes (VmRSS; pages shared by two of them count twice), seconds of CPU
    since the start.
    """

    memory: int
    cpu: float

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(memory=self.memory + other.memory, cpu=self.cpu + other.cpu)


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
        status = (_PROC / str(pid) / "status").read_text()
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:  # ended meanwhile
        return None
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    # After the name in parentheses, which may hold anything: utime and stime (proc(5)).
    fields = stat.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(memory=int(resident[1]) * 1024 if resident else 0, cpu=ticks / _TICKS)

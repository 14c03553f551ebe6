"""Running programs, as /proc tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from doctor.gather.tree import Tree

#: Jiffies a second in /proc, on every architecture that GPUs are used on (USER_HZ).
_HZ = 100
#: Where programs are found when the environment of a process cannot be read.
STANDARD_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A running program; `path` is None where its environment cannot be read."""

    pid: str
    started_at: float = 0.0
    path: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The oldest process of each of the asked-for names."""

    by_name: Mapping[str, Process] = field(default_factory=dict)

    def search_path(self, name: str) -> tuple[str, ...]:
        """Return the folders in which a program of that process finds others."""
        process = self.by_name.get(name)
        own = process.path if process is not None and process.path is not None else ()
        return tuple(dict.fromkeys((*own, *STANDARD_PATH)))

    def path_is_hidden(self, name: str) -> bool:
        """Tell whether the process runs, but its environment is closed to us."""
        process = self.by_name.get(name)
        return process is not None and process.path is None


def read_processes(tree: Tree, names: frozenset[str]) -> Processes:
    """Find processes by the name that the kernel gives them."""
    booted = _boot_time(tree.text("proc/stat") or "")
    found: dict[str, Process] = {}
    for pid in sorted(filter(str.isdigit, tree.names("proc") or ()), key=int):
        name = tree.line(f"proc/{pid}/comm")
        if name in names and name not in found:
            found[name] = _process(tree, pid, booted)
    return Processes(by_name=found)


def _process(tree: Tree, pid: str, booted: float) -> Process:
    environment = tree.data(f"proc/{pid}/environ")
    # The name in brackets may hold spaces; the 20th field after it is the time since boot.
    fields = tree.line(f"proc/{pid}/stat").rpartition(")")[2].split()
    ticks = fields[19] if len(fields) > 19 else ""
    known = booted and ticks.isdecimal() and len(ticks) < 20
    return Process(
        pid=pid,
        started_at=booted + int(ticks) / _HZ if known else 0.0,
        path=None if environment is None else _path_of(environment),
    )


def _path_of(environment: bytes) -> tuple[str, ...]:
    for entry in environment.split(b"\0"):
        if entry.startswith(b"PATH="):
            text = entry[5:].decode("utf-8", errors="replace")
            return tuple(folder for folder in text.split(":") if folder.startswith("/"))
    return ()


def _boot_time(text: str) -> float:
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "btime" and rest.isdecimal() and len(rest) < 20:
            return float(rest)
    return 0.0

"""Ending containers and everything they hold, without the help of containerd or kubelet, which may
be dead.

Found by what the kernel shows: shims by their command line, containers by their cgroup, mounts by
their path.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from localcluster.node.configuration import NodeLayout
from localcluster.processtable import command_line, process, processes
from localcluster.waiting import until

_CGROUPS = Path("/sys/fs/cgroup")
_POD_CGROUP = "kubepods"
"""kubelet's, with the cgroupfs driver. No other kubelet runs on this machine while the node does.
"""

_DETACH = 2  # MNT_DETACH of umount(2)
_PATIENCE = 20.0


def sweep(layout: NodeLayout) -> None:
    """End shims and containers, then remove their mounts and cgroups; kubelet and containerd must
    be gone.
    """
    end_containers(layout)
    _unmount_below(layout.folder)
    until(_remove_cgroups, timeout=_PATIENCE, what="removal of the pods' cgroups")


def end_containers(layout: NodeLayout) -> None:
    """Kill shims and containers and return when none is left."""
    until(lambda: not _kill(layout), timeout=_PATIENCE, what="end of containers")


def shim_sockets(layout: NodeLayout) -> list[Path]:
    """The sockets of shims, by what containerd noted in the bundles."""
    found = []
    for note in layout.containerd_state.glob("*/k8s.io/*/bootstrap.json"):
        address = json.loads(note.read_text()).get("address", "")
        found.append(Path(address.removeprefix("unix://")))
    return [path for path in found if path.is_absolute()]


def _kill(layout: NodeLayout) -> list[int]:
    """Kill what still runs; those that are left are reported until they are gone."""
    members = [*_shims(layout), *_container_processes()]
    for pid in members:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return members


def _shims(layout: NodeLayout) -> Iterator[int]:
    socket = str(layout.containerd_socket)
    for candidate in processes():
        # The kernel cuts names after 15 characters.
        if candidate.name == "containerd-shim" and socket in command_line(candidate.pid):
            yield candidate.pid


def _container_processes() -> Iterator[int]:
    for group in _pod_cgroups():
        for members in group.rglob("cgroup.procs"):
            for line in members.read_text().split():
                found = process(int(line))
                if found is not None and not found.ended:
                    yield found.pid


def _pod_cgroups() -> list[Path]:
    """The pods' cgroup in the one hierarchy of version 2, or in each of version 1."""
    return [
        path
        for path in (_CGROUPS / _POD_CGROUP, *_CGROUPS.glob(f"*/{_POD_CGROUP}"))
        if path.is_dir()
    ]


def _remove_cgroups() -> bool:
    """Remove the empty cgroups, the innermost first; the kernel may need a moment after a kill."""
    for group in _pod_cgroups():
        inner = [path for path in group.rglob("*") if path.is_dir()]
        for path in [*sorted(inner, key=lambda path: -len(path.parts)), group]:
            try:
                path.rmdir()
            except OSError:
                return False
    return True


def _unmount_below(folder: Path) -> None:
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    for point in reversed(mount_points("self")):
        if point.is_relative_to(folder) and libc.umount2(os.fsencode(point), _DETACH) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(point))


def mount_points(process: int | str) -> list[Path]:
    """What a process has mounted where, in the order of mounting (proc(5), mountinfo); blanks are
    octal there.
    """
    lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    return [Path(os.fsdecode(_unescaped(line.split()[4]))) for line in lines]


def _unescaped(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")

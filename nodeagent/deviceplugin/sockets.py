"""Tells of changes in kubelet's plugin folder: sockets made, replaced, removed, left by the dead.

Polled, because a container may see the folder through mounts that pass no file events, and because
the death of a plugin changes no file.
"""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nodeagent.deviceplugin.registration import KUBELET_SOCKET, SOCKET_PREFIX

#: Seconds between looks.
_TICK = 0.5

_Sight = frozenset[tuple[str, int, int, bool]]


class SocketWatch:
    """Calls `on_change` when the folder looks different from the last time; our sockets aside.

    The first time is when this is made, so that nothing is missed before `run`.
    """

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self._folder = folder
        self._on_change = on_change
        self._seen = look(folder)

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set."""
        while not stop.wait(_TICK):
            now = look(self._folder)
            if now != self._seen:
                self._seen = now
                self._on_change()


def look(folder: Path) -> _Sight:
    """Return name, inode, time of change of each socket, and whether somebody is behind it."""
    try:
        names = [path for path in folder.iterdir() if not path.name.startswith(SOCKET_PREFIX)]
    except OSError:
        return frozenset()
    seen = set()
    for path in names:
        try:
            found = path.stat()
        except OSError:
            continue
        if stat.S_ISSOCK(found.st_mode):
            alive = path.name == KUBELET_SOCKET or _accepts(path)
            seen.add((path.name, found.st_ino, found.st_ctime_ns, alive))
    return frozenset(seen)


def _accepts(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return True  # alive, with no room for more callers now
        except OSError:
            return False
    return True

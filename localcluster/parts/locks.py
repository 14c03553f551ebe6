"""Locks between processes, held through `flock`, so that they end with their holder.

Only file locks are here; what they protect is the caller's business.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; call `waiting` once if another process holds it, then wait.

    The file is removed at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, waiting)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                waiting()
                told = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_file(descriptor, path):
            return descriptor
        # The holder before us removed it: a lock on a file without a name excludes nobody.
        os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

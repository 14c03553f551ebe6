"""The machine's one place for a real node: at most one cluster of this kind has it.

A lock file that containerd inherits open is locked for as long as it, a shim or a container lives,
whatever becomes of the process that started them. Going up and going down happen behind a second
lock, the gate, so that nobody goes up while another one is still cleaning.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.node.machine import NodeError
from localcluster.parts.locks import exclusive

_SLOT = Path("/run/gpudetour-real-node")
_GATE = _SLOT.with_suffix(".gate")
_INTERVAL = 0.5


@contextmanager
def going_up(state: Path, *, patience: float, waiting: Callable[[str], None]) -> Iterator[int]:
    """Have the place while the node goes up; yields the descriptor that containerd must inherit.

    Waits up to `patience` seconds, after telling so once, while another cluster has the place, then
    raises `NodeError`.
    """
    deadline = time.monotonic() + patience
    told = False
    while True:
        with exclusive(
            _GATE, waiting=lambda: waiting("another real node goes up or down; waiting")
        ):
            descriptor = os.open(_SLOT, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                holder = _take(descriptor, state)
                if holder is None:
                    yield descriptor
                    return
            finally:
                os.close(descriptor)
        if time.monotonic() > deadline:
            raise NodeError(
                f"the cluster in {holder} has a real node, and a machine can have one only;"
                f" end it with `python -m localcluster down --state {holder}`"
            )
        if not told:
            waiting(f"the cluster in {holder} has the machine's real node; waiting for its end")
            told = True
        time.sleep(_INTERVAL)


@contextmanager
def going_down(*, waiting: Callable[[str], None]) -> Iterator[None]:
    """Keep others from going up until the place is clean; the node's processes must end inside."""
    with exclusive(_GATE, waiting=lambda: waiting("another real node goes up or down; waiting")):
        yield
        _SLOT.unlink(missing_ok=True)


def is_taken() -> bool:
    """Whether a cluster has the place now, or is about to."""
    try:
        descriptor = os.open(_SLOT, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take(descriptor: int, state: Path) -> str | None:
    """Lock the place for `state`, or say whose it is."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 4096, 0).decode("utf-8", "replace")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, os.fsencode(state), 0)
    return None

"""Writing files so that a killed writer leaves either the old file or the new one.

No knowledge of what is written is kept here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".unfinished-"


@contextmanager
def replacing(target: Path, *, mode: int) -> Iterator[Path]:
    """Yield a temporary path beside `target` that takes its place, synced to disk, when the block
    ends well.

    `mode` is the permission of the finished file. On an error nothing is left.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{_PREFIX}{target.name}-", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(target: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `target` in one step."""
    with replacing(target, mode=mode) as temporary:
        temporary.write_bytes(content)


@contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent` that is gone when the block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent) as folder:
        yield Path(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in `folder`; call it while holding the folder's lock."""
    for path in folder.glob(f"{_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Certificates as files, for processes that run outside the cluster."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from certs.names import KEY


def write(folder: Path, data: Mapping[str, bytes]) -> bool:
    """Make the files of one certificate what `data` says; tells whether anything changed.

    Each file is replaced in one step and only where it differs; private keys are for their owner
    only from the start. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = False
    for name, content in data.items():
        path = folder / name
        mode = 0o600 if name == KEY else 0o644
        if _same(path, content, mode):
            continue
        _replace(path, content, mode)
        changed = True
    return changed


def _same(path: Path, content: bytes, mode: int) -> bool:
    try:
        return path.stat().st_mode & 0o777 == mode and path.read_bytes() == content
    except FileNotFoundError:
        return False


def _replace(path: Path, content: bytes, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

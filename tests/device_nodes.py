"""Device nodes as a driver makes them, of a device that does nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


def make_device_node(root: Path, name: str) -> None:
    """Make `dev/<name>` below `root`; skips the test where even root may not.

    It is the null device: runtimes pass it on like any other.
    """
    path = root / "dev" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")

"""Taking a cluster down when the process that owns it ends, however it ends.

The guard is a small process in a session of its own that holds the reading end of a pipe; the owner
holds the writing end. The kernel closes it when the owner dies, even by SIGKILL.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class Guard:
    """The owner's side: start it before anything that it must take down."""

    def __init__(self, state: Path, *, environment: Mapping[str, str]) -> None:
        package_parent = str(Path(__file__).resolve().parent.parent)
        # PYTHONPATH finds this package wherever the owner was started from.
        path = os.pathsep.join(filter(None, [package_parent, environment.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "localcluster", "guard", "--state", str(state)],
            env={**environment, "PYTHONPATH": path},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """End the guard: whatever is still up is taken down by it first."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def wait_for_owner_end() -> None:
    """The guard's side: return when the owner has closed its end of standard input or is gone."""
    while sys.stdin.buffer.read(1):
        pass

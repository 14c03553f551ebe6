"""A containerd of the test's own, without kubelet: imports archives and runs containers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from localcluster.node.machine import socket_answers
from localcluster.processes import Processes
from localcluster.settings import default_settings

PARTS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")
_SHIMS = Path("/run/containerd/s")
"""Where shims have their sockets, whatever containerd's own folders are (containerd pkg/shim)."""


class Engine:
    """A running containerd."""

    def __init__(self, folder: Path, programs: Mapping[str, Path]) -> None:
        self._folder = folder
        self._programs = programs
        self._names = count()

    def ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run containerd's own client."""
        command = [str(self._programs["ctr"]), "--address", str(self._folder / "c.sock")]
        return subprocess.run(
            [*command, "--namespace", "gpudetour-test", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )

    def run(
        self, reference: str, *command: str, mounts: Mapping[Path, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, with a read-only root and as the image's own user.

        `mounts` are folders of this machine, read-only, and where they appear.
        """
        options = ["--rm", "--read-only", "--cgroup=", "--runc-binary", str(self._programs["runc"])]
        options += ["--runc-root", str(self._folder / "runc")]
        options += ["--fifo-dir", str(self._folder / "fifo")]
        for source, target in (mounts or {}).items():
            options += ["--mount", f"type=bind,src={source},dst={target},options=rbind:ro"]
        return self.ctr("run", *options, reference, f"c{next(self._names)}", *command)


@contextmanager
def running_engine(folder: Path, programs: Mapping[str, Path]) -> Iterator[Engine]:
    """Start containerd in `folder`, whose path must be short enough for sockets."""
    there = {path for path in (_SHIMS, _SHIMS.parent) if path.exists()}
    (folder / "c.toml").write_text(
        f"""version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"]
[grpc]
  address = "{folder}/c.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"""
    )
    settings = default_settings()
    processes = Processes(
        run=folder / "run", logs=folder / "logs", environment=settings.environment
    )
    shim = programs["containerd-shim-runc-v2"].parent
    try:
        processes.start(
            "containerd",
            [programs["containerd"], "--config", folder / "c.toml"],
            env={"PATH": os.pathsep.join([str(shim), settings.search_path])},
        )
        processes.wait_ready("containerd", lambda: socket_answers(folder / "c.sock"), timeout=120)
        yield Engine(folder, programs)
    finally:
        processes.stop_all()
        for path in (_SHIMS, _SHIMS.parent):
            if path not in there and path.exists() and not any(path.iterdir()):
                path.rmdir()

"""What the node tier touches on the machine outside of its own folder, and putting it back.

kubelet, the shims and the network plugins use a few fixed paths. What was missing before is removed
afterwards; what was there stays.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from localcluster.files import write_atomically
from localcluster.processtable import processes

DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
"""Where kubelet serves device plugins, whatever its --root-dir says
(pkg/kubelet/apis/deviceplugin).
"""

_CHECKPOINT = DEVICE_PLUGINS / "kubelet_internal_checkpoint"

FIXED_PATHS = (
    Path("/var/lib/kubelet"),
    DEVICE_PLUGINS,
    Path("/var/log/containers"),
    Path("/var/lib/cni"),
    Path("/run/containerd"),
    Path("/run/containerd/s"),
)
"""Parents before children. kubelet links container logs in the third; the network library caches
results in the fourth; shims have their sockets in the last (containerd pkg/shim).
"""


class NodeError(Exception):
    """The real node cannot run on this machine as it is; the text says why and what to do."""


def check_rights() -> None:
    """Raise `NodeError` where this process is not root."""
    if os.geteuid() != 0:
        raise NodeError(
            "the real node needs root: containers, mounts and cgroups;"
            " run as root, or use simulated nodes, which need none"
        )


def check_machine() -> None:
    """Raise `NodeError` where another kubelet runs on this machine, or has left its state."""
    running = [process.pid for process in processes() if process.name == "kubelet"]
    if running:
        raise NodeError(
            f"a kubelet runs on this machine already (process {running[0]}), and two cannot share"
            f" {DEVICE_PLUGINS}; end that one first"
        )
    if socket_answers(DEVICE_PLUGINS / "kubelet.sock"):
        raise NodeError(
            f"something serves {DEVICE_PLUGINS}/kubelet.sock already; end that kubelet first"
        )
    if _CHECKPOINT.exists():
        raise NodeError(
            f"{_CHECKPOINT} belongs to a kubelet that is not running now; the real node would"
            " overwrite it. Move it away if that kubelet is not needed any more"
        )


def record_host_paths(record: Path) -> None:
    """Write down which of the fixed paths exist."""
    existing = [str(path) for path in FIXED_PATHS if path.exists()]
    write_atomically(record, json.dumps({"v": 1, "existing": existing}).encode())


def restore_host_paths(record: Path, *, sockets: list[Path], logs: Path) -> None:
    """Remove what the node has made in the fixed paths: all of it where the path was missing
    before.

    `sockets` are those of the shims; `logs` is the folder to which links in /var/log/containers
    point.
    """
    if not record.exists():
        return
    existing = set(json.loads(record.read_text())["existing"])
    for path in sockets:
        path.unlink(missing_ok=True)
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(logs):
            link.unlink()
    for name in ("kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION"):
        (DEVICE_PLUGINS / name).unlink(missing_ok=True)
    for path in reversed(FIXED_PATHS):
        if str(path) not in existing and path.exists():
            _remove(path)


def oom_score_is_restricted() -> bool:
    """Whether this machine forbids negative oom_score_adj values even to root, as some small
    virtual machines do.
    """
    test = ["/bin/sh", "-c", "echo -998 > /proc/self/oom_score_adj"]
    return subprocess.run(test, capture_output=True, check=False).returncode != 0


def _remove(path: Path) -> None:
    # Another runtime may have moved in meanwhile: a folder that is not ours alone stays.
    if path in (Path("/run/containerd"), Path("/run/containerd/s")):
        if not any(path.iterdir()):
            path.rmdir()
        return
    shutil.rmtree(path)


def socket_answers(path: Path) -> bool:
    """Whether somebody accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True

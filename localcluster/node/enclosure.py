"""The enclosure: a network and a mount namespace in which a cluster has the machine to itself.

Interfaces, routes, iptables rules and whatever is written below /etc, /run, /var/lib and /var/log
live in it and end with its last process; the machine shows nothing of them. The cluster's ports on
the machine's loopback address are carried to the same ports inside (`relay`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from localcluster.layout import Layout
from localcluster.node.sweep import mount_points
from localcluster.processes import ENCLOSURE, Processes

ADDRESS = "192.0.2.1"
"""The node's address inside, of the block for documentation (RFC 5737): pods reach the API server
by it, and nothing outside does.
"""

PROGRAMS = ("unshare", "nsenter", "mount", "ip", "iptables-restore")
"""What the machine must have: util-linux, iproute2, iptables."""

_OVERLAID = ("etc", "var/lib", "var/log")
_RELAY = "relay"
_PATIENCE = 30.0
# $0: folder of the overlays' upper parts, $1: the node's address, then the overlaid folders.
_FURNISH_THEN_WAIT = """
set -e
address=$1
shift
mount --make-rshared /
for folder in "$@"; do
    mount -t overlay -o "lowerdir=/$folder,upperdir=$0/$folder,workdir=$0/work/$folder" \
        enclosure "/$folder"
done
mount -t tmpfs -o mode=755 enclosure /run
ip link set lo up
ip address add "$address/32" dev lo
# Addresses of Services are routed before they are translated, and no route may lead out.
ip route add default dev lo src "$address"
echo 1 > /proc/sys/net/ipv4/ip_forward
: > "$0/furnished"
exec sleep infinity
"""


def missing_programs(search_path: str) -> list[str]:
    """Those of `PROGRAMS` that the machine has not."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path) is None]


class Enclosure:
    """The enclosure of one cluster; processes that are started while it is there run in it."""

    def __init__(self, layout: Layout, *, processes: Processes) -> None:
        self._folder = layout.enclosure
        self._processes = processes

    @property
    def root(self) -> Path:
        """The root folder as it is inside, by a path of the outside; the machine's own where no
        enclosure is.
        """
        pid = self._processes.pid(ENCLOSURE)
        return Path("/") if pid is None else Path(f"/proc/{pid}/root")

    def inside(self, path: Path) -> Path:
        """The path by which the outside reaches an absolute path of the inside."""
        return self.root / path.relative_to("/")

    def start(self, ports: Iterable[int], *, slot: int) -> None:
        """Make the namespaces and carry these ports of the loopback address into them.

        `slot` is the machine's place for a real node, held as long as the enclosure is there.
        """
        for folder in _OVERLAID:
            (self._folder / folder).mkdir(parents=True)
            (self._folder / "work" / folder).mkdir(parents=True)
        furnish = ["sh", "-c", _FURNISH_THEN_WAIT, str(self._folder), ADDRESS, *_OVERLAID]
        self._processes.start(
            ENCLOSURE,
            ["unshare", "--net", "--mount", "--propagation=slave", *furnish],
            grace=0,
            inherited=slot,
        )
        furnished = self._folder / "furnished"
        self._processes.wait_ready(ENCLOSURE, furnished.exists, timeout=_PATIENCE)
        self._start_relay(ports)

    def unmount(self, *folders: Path) -> None:
        """Unmount all that is mounted below these folders of the inside, even where it is busy."""
        pid = self._processes.pid(ENCLOSURE)
        if pid is None:
            return
        found = [
            str(point)
            for point in reversed(mount_points(pid))
            if any(point.is_relative_to(folder) for folder in folders)
        ]
        if found:
            command = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "--", "umount", "--lazy", *found]
            subprocess.run(command, check=True)

    def _start_relay(self, ports: Iterable[int]) -> None:
        pid = self._processes.pid(ENCLOSURE)
        ready = self._folder / "relayed"
        package_parent = str(Path(__file__).resolve().parents[2])
        self._processes.start(
            _RELAY,
            [
                *(sys.executable, "-m", "localcluster.node.relay"),
                f"/proc/{pid}/ns/net",
                ready,
                *map(str, ports),
            ],
            env={"PYTHONPATH": os.pathsep.join([package_parent])},
            grace=0,
            outside=True,
        )
        self._processes.wait_ready(_RELAY, ready.exists, timeout=_PATIENCE)

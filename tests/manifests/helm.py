"""Helm as an administrator uses it on a cluster."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster.cluster import LocalCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    """`program` for one cluster; `home` is where it may keep things."""

    program: Path
    cluster: LocalCluster
    home: Path

    def run(self, *arguments: str) -> str:
        """Run it and return what it printed; AssertionError with its words where it fails."""
        done = subprocess.run(
            [str(self.program), *arguments, "--namespace=kube-system"],
            env={"KUBECONFIG": str(self.cluster.admin_kubeconfig), "HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

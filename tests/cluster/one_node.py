"""A control plane with all parts and one node of eight GPUs, whose agent serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.cluster import LocalCluster
from localcluster.nvml.install import install
from localcluster.stack import Stack
from tests.cluster.pods import serves_gpus


@contextmanager
def one_node(folder: Path, *, name: str) -> Iterator[Stack]:
    """Bring it up below `folder`; its node has that name."""
    with LocalCluster(folder / "cluster") as cluster:
        stack = Stack(cluster)
        stack.install()
        cluster.create_simulated_nodes([name])
        install(folder / "driver", "8x-h100", node=name)
        stack.start_agent(name, folder / "driver")
        cluster.wait_for(f"/api/v1/nodes/{name}", serves_gpus, timeout=120)
        yield stack

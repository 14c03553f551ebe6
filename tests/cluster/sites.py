"""Control planes with all parts on them, as several folders of tests begin with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.nvml.install import install
from localcluster.stack import Stack
from tests.cluster.pods import serves_gpus


@contextmanager
def one_node(folder: Path, *, name: str) -> Iterator[Stack]:
    """Bring one up below `folder`, with one node of eight GPUs whose agent serves."""
    with LocalCluster(folder / "cluster") as cluster:
        stack = Stack(cluster)
        stack.install()
        cluster.create_simulated_nodes([name])
        install(folder / "driver", "8x-h100", node=name)
        stack.start_agent(name, folder / "driver")
        cluster.wait_for(f"/api/v1/nodes/{name}", serves_gpus, timeout=120)
        yield stack


@contextmanager
def no_nodes(folder: Path) -> Iterator[Stack]:
    """Bring one up below `folder` in which nothing happens but what a test does.

    Nodes that it creates are ready at once.
    """
    options = ControlPlaneOptions(
        node_lifecycle=False,
        apiserver_args=["--disable-admission-plugins=TaintNodesByCondition"],
    )
    with LocalCluster(folder / "cluster", options=options) as cluster:
        stack = Stack(cluster)
        stack.install()
        yield stack

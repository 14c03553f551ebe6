"""The real node with GPUs, shared by the tests of this folder; each begins with an empty one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.stack import Stack
from tests.node.gpu_node import GpuNode


@pytest.fixture(scope="session")
def prepared_node(real_node: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> GpuNode:
    """The node with our objects applied, two GPUs, and no agent yet."""
    stack = Stack(real_node)
    real_node.apply(shipped.cluster_objects())
    return GpuNode(real_node, stack, tmp_path_factory.mktemp("driver"))


@pytest.fixture
def gpu_node(prepared_node: GpuNode) -> Iterator[GpuNode]:
    """The node without agent, plugin and pods, and left like that."""
    yield prepared_node
    # Shown where a test failed.
    sys.stdout.write(prepared_node.agent_log())
    prepared_node.reset()

"""One monitored site for the tests of this folder, and every state that it was brought into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.cluster import LocalCluster
from localcluster.monitoring.site import MonitoredSite
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.settings import default_settings
from tests.metrics.scrapes import State
from tests.metrics.states import NODES, States


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The program; skip where it is missing."""
    return _program("promtool")


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    """The server; skip where it is missing."""
    return _program("prometheus")


@pytest.fixture(scope="session")
def site(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None
) -> Iterator[MonitoredSite]:
    """All parts as processes, with two nodes of two GPUs each."""
    del control_plane_parts
    folder = tmp_path_factory.mktemp("monitored")
    with LocalCluster(folder / "cluster") as cluster:
        site = MonitoredSite(cluster, folder)
        site.up(NODES)
        yield site


@pytest.fixture(scope="session")
def states(site: MonitoredSite) -> dict[str, State]:
    """The site in good health, by the name `good`, and in the state of each alert, by its name.

    Afterwards it is in good health again.
    """
    return States(site).visit()


def _program(name: str) -> Path:
    found = find(catalogue(architecture())[name], default_settings())
    if found is None:
        pytest.skip(f"not on this machine: {name}; run `python -m localcluster parts {name}`")
    return found

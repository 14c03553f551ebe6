"""The node in an enclosure: the machine shows nothing of it, while it is there and afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from localcluster.cluster import LocalCluster
from localcluster.node.enclosure import missing_programs
from localcluster.node.real import ENCLOSED_PARTS
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.processes import ENCLOSURE
from localcluster.settings import default_settings
from tests.localcluster.footprint import footprint, processes_of
from tests.localcluster.test_real_node import logged
from tests.localcluster.test_real_node_leaves_nothing import run_a_pod

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("machine_alone")]


@pytest.fixture
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: sockets lie below it."""
    settings, table = default_settings(), catalogue(architecture())
    parts = [name for name in ENCLOSED_PARTS if find(table[name], settings) is None]
    if missing := [*parts, *missing_programs(settings.search_path)]:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    return tmp_path_factory.mktemp("e")


def test_the_machine_shows_nothing_of_it(parent: Path) -> None:
    before = footprint(parent)

    with LocalCluster(parent / "s", enclosed=True) as cluster:
        run_a_pod(cluster)
        during = footprint(parent)
        pod = cluster.api.get("/api/v1/namespaces/default/pods/tracer")
        endpoints = cluster.api.get("/api/v1/namespaces/default/endpoints/kubernetes")
        lines = logged(cluster, "tracer")

    assert (during.interfaces, during.mounts) == (before.interfaces, before.mounts)
    assert during.fixed_paths == before.fixed_paths
    assert during.cgroups > before.cgroups
    assert footprint(parent) == before
    assert processes_of(parent) == {}
    assert list(parent.iterdir()) == []
    # Pods have an address of their own and find the API server by its Service.
    assert pod["status"]["podIP"].startswith("10.244.0.")
    assert endpoints["subsets"][0]["addresses"] == [{"ip": "192.0.2.1"}]
    assert "KUBERNETES_SERVICE_HOST=10.96.0.1" in lines


def test_nothing_is_left_when_its_processes_were_killed(parent: Path) -> None:
    before = footprint(parent)
    with LocalCluster(parent / "s", enclosed=True) as cluster:
        run_a_pod(cluster)

        for name in (ENCLOSURE, "relay", "containerd", "kubelet"):
            pid = cluster.processes.pid(name)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    assert footprint(parent) == before
    assert processes_of(parent) == {}
    assert list(parent.iterdir()) == []


def test_pods_come_back_after_a_reboot(parent: Path) -> None:
    with LocalCluster(parent / "s", enclosed=True) as cluster:
        run_a_pod(cluster)

        cluster.reboot_node()

        pod = cluster.wait_for(
            "/api/v1/namespaces/default/pods/tracer",
            lambda found: (
                found["status"]["phase"] == "Running"
                and found["status"]["containerStatuses"][0]["restartCount"] == 1
                and "running" in found["status"]["containerStatuses"][0]["state"]
            ),
            timeout=120,
        )
        assert pod["status"]["podIP"].startswith("10.244.0.")

"""The real node going up and down: the machine is afterwards as it was."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.cluster import LocalCluster
from localcluster.image.make import BOX_IMAGE
from localcluster.node.machine import DEVICE_PLUGINS, NodeError, check_machine
from localcluster.node.slot import going_up
from localcluster.parts.progress import SilentProgress
from localcluster.settings import default_settings
from localcluster.waiting import until
from tests.localcluster.footprint import footprint, processes_of

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("machine_alone")]

ROOT = Path(__file__).parents[2]

OWNER = """
import sys
from collections.abc import Iterator
from pathlib import Path
from localcluster.cluster import LocalCluster
from tests.localcluster.test_real_node_leaves_nothing import run_a_pod
with LocalCluster(Path(sys.argv[1]), node=True) as cluster:
    run_a_pod(cluster)
    print("up", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: sockets lie below it."""
    return tmp_path_factory.mktemp("n")


def run_a_pod(cluster: LocalCluster) -> None:
    """Run a pod with all that leaves traces: volumes in memory, a network namespace, a log."""
    container = {
        "name": "main",
        "image": BOX_IMAGE,
        "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
    }
    cluster.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "tracer", "namespace": "default"},
                "spec": {
                    "containers": [container],
                    "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
                },
            }
        ]
    )
    cluster.wait_for(
        "/api/v1/namespaces/default/pods/tracer",
        lambda found: found["status"]["phase"] == "Running",
        timeout=60,
    )


def test_nothing_is_left_after_down(parent: Path) -> None:
    before = footprint(parent)

    with LocalCluster(parent / "s", node=True) as cluster:
        run_a_pod(cluster)
        during = footprint(parent)

    assert footprint(parent) == before
    assert processes_of(parent) == {}
    assert list(parent.iterdir()) == []
    # The comparison sees what it is meant to see.
    assert during.mounts > before.mounts
    assert during.cgroups > before.cgroups
    assert during.pod_network_namespaces > before.pod_network_namespaces
    assert during.fixed_paths > before.fixed_paths
    assert during.interfaces == before.interfaces


def test_nothing_is_left_when_everything_was_killed_before_down(parent: Path) -> None:
    before = footprint(parent)
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(parent / "s")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        (guard,) = [pid for pid, words in processes_of(parent).items() if "guard" in words]
        os.kill(guard, signal.SIGKILL)
        owner.kill()
    for pid, words in processes_of(parent).items():
        if Path(words[0]).name in ("containerd", "kubelet"):
            os.kill(pid, signal.SIGKILL)

    LocalCluster(parent / "s").down()

    assert footprint(parent) == before
    assert processes_of(parent) == {}
    assert list(parent.iterdir()) == []


def test_a_second_real_node_is_refused_and_the_first_one_untouched(parent: Path) -> None:
    with LocalCluster(parent / "s", node=True) as cluster:
        run_a_pod(cluster)

        impatient = dataclasses.replace(default_settings(), node_patience=0)
        with pytest.raises(NodeError, match=f"the cluster in {parent}/s has a real node"):
            LocalCluster(parent / "t", node=True, settings=impatient).start()

        assert not (parent / "t").exists()
        cluster.processes.check()
        assert "PATH=/bin" in cluster.kubectl("exec", "tracer", "--", "box", "env")


def test_a_second_real_node_comes_up_when_the_first_one_is_gone(parent: Path) -> None:
    first = LocalCluster(parent / "s", node=True)
    first.start()
    noted: list[str] = []

    class Ending(SilentProgress):
        def note(self, text: str) -> None:
            noted.append(text)
            first.down()

    with LocalCluster(parent / "t", node=True, progress=Ending()) as second:
        run_a_pod(second)

    assert noted == [f"the cluster in {parent}/s has the machine's real node; waiting for its end"]


@pytest.fixture
def empty_place(parent: Path) -> Iterator[None]:
    """No cluster has the machine's real node."""
    with going_up(parent, patience=120, waiting=print):
        yield


@pytest.mark.usefixtures("empty_place")
def test_another_kubelets_socket_is_respected() -> None:
    made = [folder for folder in (DEVICE_PLUGINS.parent, DEVICE_PLUGINS) if not folder.exists()]
    DEVICE_PLUGINS.mkdir(parents=True, exist_ok=True)
    path = DEVICE_PLUGINS / "kubelet.sock"
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            with pytest.raises(NodeError, match="end that kubelet first"):
                check_machine()
    finally:
        path.unlink()
        for folder in reversed(made):
            folder.rmdir()


@pytest.mark.usefixtures("empty_place")
def test_another_kubelets_checkpoint_is_not_overwritten() -> None:
    made = [folder for folder in (DEVICE_PLUGINS.parent, DEVICE_PLUGINS) if not folder.exists()]
    DEVICE_PLUGINS.mkdir(parents=True, exist_ok=True)
    path = DEVICE_PLUGINS / "kubelet_internal_checkpoint"
    try:
        path.write_text("{}")
        with pytest.raises(NodeError, match="Move it away"):
            check_machine()
        assert path.read_text() == "{}"
    finally:
        path.unlink()
        for folder in reversed(made):
            folder.rmdir()


def test_a_state_folder_too_deep_for_sockets_is_refused(parent: Path) -> None:
    deep = parent / ("d" * 80) / "s"

    with pytest.raises(NodeError, match="too long for a socket"):
        LocalCluster(deep, node=True).start()

    until(lambda: not processes_of(parent), timeout=5, what="nothing running")
    assert not deep.exists()

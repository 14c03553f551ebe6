"""Whether DRA serves a node's GPUs, as API servers of every kind tell it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kube.client import MERGE_PATCH, Client
from kube.connection import connect
from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.waiting import until
from nodeagent.dra import DraWatch
from tests.fakes.api_server import Answer, FakeApiServer, Reply, Request, Stream, refusal

GROUP = "/apis/resource.k8s.io"
CLASSES, SLICES = f"{GROUP}/v1/deviceclasses", f"{GROUP}/v1/resourceslices"


class Watched:
    """A watch at work; `until` waits for what it says."""

    def __init__(self, client: Client, node: str, *, pause: float) -> None:
        self._changed = threading.Condition()
        self.changes = 0
        #: What it said when it last told of a change.
        self._told = ""
        self.dra = DraWatch(client, node, on_change=self._on_change, pause=pause)

    def _on_change(self) -> None:
        with self._changed:
            self.changes += 1
            self._told = self.dra.served()
            self._changed.notify_all()

    def until(self, holds: Callable[[str], bool]) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self._told), 20), self.dra.served()
            return self._told


@contextmanager
def watching(client: Client, node: str = "n1", *, pause: float = 300) -> Iterator[Watched]:
    watched = Watched(client, node, pause=pause)
    stop = threading.Event()
    thread = threading.Thread(target=watched.dra.run, args=(stop,))
    thread.start()
    try:
        yield watched
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def _known(watched: Watched) -> None:
    until(watched.dra.known, timeout=20, what="an answer about DRA")


def _follows(watched: Watched) -> None:
    """Wait until it has told, once, that it follows DRA's objects; it may be known before."""
    _known(watched)
    until(lambda: watched.changes, timeout=20, what="the first change")


@contextmanager
def answering(reply: Callable[[Request], Reply], *, pause: float = 300) -> Iterator[Watched]:
    with FakeApiServer(reply) as server, watching(Client(server.connection()), pause=pause) as seen:
        yield seen


@pytest.mark.parametrize(
    "reply",
    [
        lambda _: refusal(404, "NotFound"),
        lambda _: refusal(403, "Forbidden"),
        lambda _: refusal(500, "InternalError"),
        lambda _: Answer(body={"versions": [{"version": "v1alpha2"}, 3]}),
        lambda _: Answer(body={"versions": None}),
        lambda _: Answer(body=[]),
        lambda r: (
            refusal(403, "Forbidden")
            if r.path != GROUP
            else Answer(body={"versions": [{"version": "v1"}]})
        ),
    ],
    ids=["absent", "forbidden", "broken", "too old", "none", "nonsense", "no rights"],
)
def test_where_nothing_can_be_learnt_there_is_no_dra(reply: Callable[[Request], Reply]) -> None:
    with answering(reply) as watched:
        _known(watched)
        assert watched.dra.served() == ""


def test_an_api_server_that_does_not_answer_leaves_it_open() -> None:
    with FakeApiServer(lambda _: Answer()) as server:
        connection = server.connection()
    with watching(Client(connection), pause=0.05) as watched:
        assert not watched.dra.known()


def test_the_api_server_is_asked_again_and_followed_in_the_version_that_it_has_then() -> None:
    versions: list[str] = []
    over = threading.Event()
    asked: list[str] = []

    def reply(request: Request) -> Reply:
        if request.path == GROUP:
            return Answer(body={"versions": [{"version": v} for v in versions]})
        if request.is_watch:
            return Stream(_silence(over))
        asked.append(request.path)
        item: dict[str, Any] = {"metadata": {"name": "s", "uid": "u", "resourceVersion": "1"}}
        if request.path.endswith("resourceslices"):
            assert request.params["fieldSelector"] == "spec.nodeName=n1"
            item["spec"] = {"driver": "gpu.nvidia.com", "nodeName": "n1"}
        return Answer(body={"metadata": {"resourceVersion": "1"}, "items": [item]})

    with answering(reply, pause=0.05) as watched:
        _known(watched)
        assert watched.dra.served() == ""
        versions.append("v1beta1")
        watched.until(lambda served: "ResourceSlices of gpu.nvidia.com" in served)
        versions.append("v1")
        until(lambda: CLASSES in asked and SLICES in asked, timeout=20, what="v1")
        watched.until(lambda served: "ResourceSlices" in served)
        versions.clear()
        watched.until(lambda served: served == "")
        over.set()


def _silence(over: threading.Event) -> Iterator[bytes]:
    over.wait(60)
    yield b""


@pytest.fixture(scope="module")
def cluster(
    control_plane_parts: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """A control plane whose DeviceClasses may stand for extended resources."""
    del control_plane_parts
    gate = ControlPlaneOptions(apiserver_args=["--feature-gates=DRAExtendedResource=true"])
    state = tmp_path_factory.mktemp("c", numbered=True) / "s"
    with LocalCluster(state, options=gate) as cluster:
        cluster.apply(shipped.cluster_objects())
        for name in ("n1", "n2"):
            cluster.api.create("/api/v1/nodes", {"metadata": {"name": name}})
        yield cluster


@pytest.fixture
def agents_client(cluster: LocalCluster) -> Iterator[Client]:
    """With the rights of the agent of n1, and no more."""
    account = ("gpudetour-system", "default")
    cluster.wait_for("/api/v1/namespaces/gpudetour-system/serviceaccounts/default", bool)
    kubeconfig: Path = cluster.service_account_kubeconfig(*account, node="n1")
    kinds = ("deviceclasses", "resourceslices")

    def may_list() -> bool:
        asked = (("auth", "can-i", "list", f"{kind}.resource.k8s.io") for kind in kinds)
        option = f"--kubeconfig={kubeconfig}"
        return all(cluster.kubectl(*a, option, check=False).startswith("yes") for a in asked)

    # The API server goes by the roles that it has seen.
    until(may_list, timeout=60, what="the agent's rights")
    client = Client(connect(str(kubeconfig)))
    yield client
    client.close()


def _slice(node: str, driver: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{node}-{driver}"},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}],
        },
    }


@pytest.mark.controlplane
def test_slices_of_nvidias_driver_for_this_node_are_what_matters(
    cluster: LocalCluster, agents_client: Client
) -> None:
    with watching(agents_client) as watched:
        _follows(watched)
        for node, driver in (("n2", "gpu.nvidia.com"), ("n1", "compute-domain.nvidia.com")):
            cluster.api.create(SLICES, _slice(node, driver))
        cluster.api.create(SLICES, _slice("n1", "gpu.nvidia.com"))
        assert "gpu.nvidia.com" in watched.until(bool)
        changes = watched.changes
        cluster.api.delete(f"{SLICES}/n1-compute-domain.nvidia.com")
        cluster.api.delete(f"{SLICES}/n1-gpu.nvidia.com")
        watched.until(lambda served: served == "")
        # What is not about the GPUs of this node wakes nobody.
        assert watched.changes == changes + 1


@pytest.mark.controlplane
def test_a_device_class_that_stands_for_gpus_matters_on_every_node(
    cluster: LocalCluster, agents_client: Client
) -> None:
    with watching(agents_client) as watched:
        _follows(watched)
        name, before = f"{CLASSES}/gpu.nvidia.com", watched.changes
        cluster.api.create(CLASSES, {"metadata": {"name": "gpu.nvidia.com"}, "spec": {}})
        admin = Client(connect(str(cluster.admin_kubeconfig)))
        other = {"spec": {"extendedResourceName": "example.com/gpu"}}
        admin.patch(name, other, content_type=MERGE_PATCH)
        ours = {"spec": {"extendedResourceName": "nvidia.com/gpu"}}
        admin.patch(name, ours, content_type=MERGE_PATCH)
        told = watched.until(bool)
        assert watched.changes == before + 1
        assert told == "the DeviceClass gpu.nvidia.com stands for nvidia.com/gpu (DRA)"
        admin.delete(name)
        watched.until(lambda said: said == "")
        admin.close()

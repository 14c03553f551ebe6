"""A reflector on a real kube-apiserver, over TLS."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from kube.client import MERGE_PATCH, Client
from kube.connection import connect
from kube.errors import Gone, NotFound, TooManyRequests
from kube.objects import Object
from kube.reflector import WatchTiming
from kube.watch import Mirror
from localcluster.cluster import LocalCluster
from localcluster.waiting import until
from tests.kube.following import following

pytestmark = pytest.mark.controlplane

NAMESPACE = "reflector"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
MARK = {"labelSelector": "follow=yes"}


@pytest.fixture
def client(control_plane: LocalCluster) -> Iterator[Client]:
    client = Client(connect(str(control_plane.admin_kubeconfig)))
    yield client
    client.close()


@pytest.fixture
def namespace(control_plane: LocalCluster, client: Client) -> Iterator[None]:
    client.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    # Pods are refused before.
    control_plane.wait_for(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default", bool)
    yield
    client.delete(PODS, params={"gracePeriodSeconds": "0"})
    client.delete(f"/api/v1/namespaces/{NAMESPACE}")
    control_plane.kubectl("wait", "--for=delete", f"namespace/{NAMESPACE}", "--timeout=60s")


def pod(name: str, follow: str = "yes") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"follow": follow}},
        "spec": {
            "automountServiceAccountToken": False,
            "schedulerName": "nobody",
            "containers": [{"name": "main", "image": "none"}],
        },
    }


def delete(client: Client, name: str) -> None:
    client.delete(f"{PODS}/{name}", params={"gracePeriodSeconds": "0"})


@pytest.mark.usefixtures("namespace")
def test_it_tells_what_happens_to_the_pods_that_it_selects(
    control_plane: LocalCluster, client: Client
) -> None:
    client.create(PODS, pod("before"))
    client.create(PODS, pod("ignored", follow="no"))
    connection = connect(str(control_plane.admin_kubeconfig))
    with following(connection, PODS, params=MARK, timing=WatchTiming()) as follower:
        expected = [("ADDED", "before")]
        follower.wait_lives(*expected)
        client.create(PODS, pod("a"))
        expected += [("ADDED", "a")]
        follower.wait_lives(*expected)
        # Out of the selection is as good as deleted, and into it as good as new.
        relabel = {"metadata": {"labels": {"follow": "no"}}}
        client.patch(f"{PODS}/a", relabel, content_type=MERGE_PATCH)
        relabel = {"metadata": {"labels": {"follow": "yes"}}}
        client.patch(f"{PODS}/ignored", relabel, content_type=MERGE_PATCH)
        expected += [("DELETED", "a"), ("ADDED", "ignored")]
        follower.wait_lives(*expected)
        delete(client, "before")
        client.create(PODS, pod("before"))
        expected += [("DELETED", "before"), ("ADDED", "before")]
        follower.wait_lives(*expected)

        assert follower.reflector.relists == 0


@pytest.mark.usefixtures("namespace")
def test_close_wakes_a_watch_over_tls_at_once(control_plane: LocalCluster) -> None:
    connection = connect(str(control_plane.admin_kubeconfig))
    with following(connection, PODS, timing=WatchTiming()) as follower:
        assert follower.reflector.synced.wait(10)
        follower.stop.set()
        follower.reflector.close()
        # Much less than the time for which a watch may be idle.
        follower.thread.join(10)

        assert not follower.thread.is_alive()


@pytest.mark.usefixtures("namespace")
def test_a_frozen_api_server_is_survived_without_a_listing(
    control_plane: LocalCluster, client: Client
) -> None:
    pid = control_plane.processes.pid("kube-apiserver")
    assert pid is not None
    connection = connect(str(control_plane.admin_kubeconfig))
    timing = WatchTiming(idle=1, backoff_first=0.1, backoff_cap=0.5)
    with following(connection, PODS, timing=timing) as follower:
        client.create(PODS, pod("a"))
        follower.wait_told(("ADDED", "a"))
        os.kill(pid, signal.SIGSTOP)
        try:
            silent = follower.reflector.last_contact
            follower.stop.wait(2.5)  # the outage itself
            assert follower.reflector.last_contact - silent < 1.5
        finally:
            os.kill(pid, signal.SIGCONT)
        client.create(PODS, pod("b"))
        follower.wait_told(("ADDED", "a"), ("ADDED", "b"))

        assert follower.reflector.relists == 0


def listed(client: Client, path: str) -> bool:
    try:
        return bool(client.list_all(path, type=Object).version)
    except (NotFound, TooManyRequests):  # not yet known; "storage is (re)initializing"
        return False


@pytest.fixture
def new_kind(client: Client) -> Iterator[str]:
    """The path of a kind that the server has begun to watch just now, at a high version."""
    names = {"kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList"}
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    definition = {
        "metadata": {"name": "things.test.gpudetour.io"},
        "spec": {
            "group": "test.gpudetour.io",
            "names": names,
            "scope": "Cluster",
            "versions": [version],
        },
    }
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    client.create(definitions, definition)
    path = "/apis/test.gpudetour.io/v1/things"
    until(lambda: listed(client, path), timeout=30, what="the new kind to be served")
    yield path
    client.delete(f"{definitions}/things.test.gpudetour.io")


def test_a_version_that_the_server_does_not_remember_is_gone(client: Client, new_kind: str) -> None:
    params = {"watch": "true", "resourceVersion": "1"}
    mirror = Mirror(Object)

    def read() -> None:
        for line in client.stream(new_kind, params=params, idle_timeout=10):
            mirror.line(line)

    with pytest.raises(Gone):
        read()


@pytest.mark.usefixtures("namespace")
def test_a_list_of_more_than_a_page_is_read_whole(client: Client) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    wanted = {f"cm-{number:04}" for number in range(1001)}
    for name in wanted:
        client.create(path, {"metadata": {"name": name}})

    found = client.list_all(path, type=Object)

    names = [each.metadata.name for each in found.items]
    assert len(names) == len(set(names))
    assert set(names) - {"kube-root-ca.crt"} == wanted

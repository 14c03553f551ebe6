"""Events on a real kube-apiserver, as the real kubectl shows them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.client import Client
from kube.connection import connect
from kube.events import EventRecorder
from kube.objects import ObjectReference
from localcluster.cluster import LocalCluster
from localcluster.waiting import until

pytestmark = pytest.mark.controlplane

EVENTS = "/api/v1/namespaces/default/events"


@pytest.fixture
def client(control_plane: LocalCluster) -> Iterator[Client]:
    client = Client(connect(str(control_plane.admin_kubeconfig)))
    yield client
    client.close()


@pytest.fixture
def account(client: Client) -> Iterator[ObjectReference]:
    """An object to report about."""
    path = "/api/v1/namespaces/default/serviceaccounts"
    created = client.create(path, {"metadata": {"generateName": "events-"}})["metadata"]
    yield ObjectReference(
        api_version="v1",
        kind="ServiceAccount",
        namespace="default",
        name=created["name"],
        uid=created["uid"],
    )
    client.delete(f"{path}/{created['name']}")


@pytest.fixture
def recorder(client: Client) -> Iterator[EventRecorder]:
    recorder = EventRecorder(client, component="gpudetour-test", instance="test-1")
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stop,))
    thread.start()
    yield recorder
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


Written = Callable[[Callable[[list[dict[str, Any]]], bool]], list[dict[str, Any]]]


@pytest.fixture
def written(client: Client, account: ObjectReference) -> Written:
    """Waits for the Events about the object to be as wished."""

    def wait(wish: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def look() -> bool:
            selector = {"fieldSelector": f"involvedObject.uid={account.uid}"}
            found[:] = client.get(EVENTS, params=selector)["items"]
            return wish(found)

        until(look, timeout=60, what="the Events")
        return found

    return wait


def total(events: list[dict[str, Any]]) -> int:
    return sum(event["count"] for event in events)


def test_an_event_is_shown_by_kubectl_describe(
    control_plane: LocalCluster, recorder: EventRecorder, account: ObjectReference, written: Written
) -> None:
    recorder.event(account, type="Warning", reason="GpuLost", message="GPU 3 fell off the bus.")
    written(lambda events: len(events) == 1)

    shown = control_plane.kubectl("describe", "serviceaccount", account.name)

    (line,) = [line for line in shown.splitlines() if "GpuLost" in line]
    assert line.split()[:2] == ["Warning", "GpuLost"]
    assert "gpudetour-test" in line
    assert "GPU 3 fell off the bus." in line


def test_repetitions_are_counted_on_one_event_and_others_stand_apart(
    recorder: EventRecorder, account: ObjectReference, written: Written
) -> None:
    for _ in range(20):
        recorder.event(account, type="Normal", reason="PathChanged", message="plugin")
    written(lambda events: total(events) == 20)
    for _ in range(5):
        recorder.event(account, type="Normal", reason="PathChanged", message="plugin")
    recorder.event(account, type="Normal", reason="PathChanged", message="annotation")
    events = written(lambda events: total(events) == 26)

    assert sorted((event["message"], event["count"]) for event in events) == [
        ("annotation", 1),
        ("plugin", 25),
    ]


def test_a_storm_leaves_few_events_that_read_well(
    control_plane: LocalCluster, recorder: EventRecorder, account: ObjectReference, written: Written
) -> None:
    """Of one reason ten texts are told as they are, and all after them on one Event."""
    for number in range(500):
        message = f"GPU 3 is faulty: Xid {number}: see NVIDIA's Xid catalog; no new pod gets it"
        recorder.event(account, type="Warning", reason="GPUUnhealthy", message=message)
        recorder.event(account, type="Normal", reason="GPUHealthy", message="GPU 3 is healthy")
    events = written(lambda events: total(events) == 1000)

    assert len(events) == 12
    shown = control_plane.kubectl("describe", "serviceaccount", account.name)
    lines = [line for line in shown.splitlines() if "GPU" in line]
    assert len(lines) == 12
    (combined,) = [line for line in lines if "combined from similar events" in line]
    assert "GPU 3 is faulty: Xid 499: see NVIDIA's Xid catalog; no new pod gets it" in combined
    assert "x490" in combined
    (well,) = [line for line in lines if "GPU 3 is healthy" in line]
    assert "x500" in well


def test_an_event_that_the_server_forgot_is_written_anew(
    client: Client, recorder: EventRecorder, account: ObjectReference, written: Written
) -> None:
    recorder.event(account, type="Normal", reason="R", message="m")
    (first,) = written(lambda events: len(events) == 1)
    client.delete(f"{EVENTS}/{first['metadata']['name']}")
    recorder.event(account, type="Normal", reason="R", message="m")
    (second,) = written(lambda events: len(events) == 1)

    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert second["count"] == 1


def test_an_event_about_a_node_lands_where_kubectl_looks_for_it(
    control_plane: LocalCluster, client: Client, recorder: EventRecorder
) -> None:
    node = client.create("/api/v1/nodes", {"metadata": {"generateName": "events-"}})["metadata"]
    try:
        about = ObjectReference(api_version="v1", kind="Node", name=node["name"], uid=node["uid"])
        recorder.event(about, type="Normal", reason="GPUPathHealthy", message="served by us")
        until(
            lambda: "GPUPathHealthy" in control_plane.kubectl("describe", "node", node["name"]),
            timeout=60,
            what="the Event in kubectl describe node",
        )
    finally:
        client.delete(f"/api/v1/nodes/{node['name']}")


def test_what_is_too_long_or_refused_is_no_harm_to_the_rest(
    recorder: EventRecorder, account: ObjectReference, written: Written
) -> None:
    nowhere = ObjectReference(api_version="v1", kind="Pod", namespace="no-such-place", name="p")
    recorder.event(nowhere, type="Normal", reason="R", message="lost")
    recorder.event(account, type="Normal", reason="R" * 500, message="\u00e9" * 5000)

    (event,) = written(lambda events: len(events) == 1)

    assert event["message"] == "\u00e9" * 1024

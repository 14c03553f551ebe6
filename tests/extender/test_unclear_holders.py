"""A pod of which nobody can say what it holds stops its node, and its owner is told so, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from extender.metrics import Metrics
from extender.unclear import EVENT, UnclearHolders
from gpus import annotations as contract
from kube.client import Client
from kube.events import EventRecorder
from kube.reflector import EventKind
from tests.builders import PodBuilder, node, pod
from tests.extender.ledgers import Told
from tests.fakes.api_server import Answer, FakeApiServer, Request

NODES = (node("ann").with_gpus(2).annotation_path(), node("plug").with_gpus(2).plugin_path())


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    def accept(request: Request) -> Answer:
        del request
        return Answer()

    with FakeApiServer(accept) as server:
        yield server


class Watched:
    """A cluster that is looked at, and what was written about it."""

    def __init__(self, server: FakeApiServer) -> None:
        self.told = Told(*NODES)
        self.leads = True
        self._server = server
        self._client = Client(server.connection())
        self._events = EventRecorder(self._client, component="test", instance="test-1")
        self._unclear = UnclearHolders(self.told.cluster, self._events, leading=lambda: self.leads)

    def look(self) -> list[tuple[str, str]]:
        """Look once; return the pods and messages of all Events that were written until now."""
        self._unclear.look()
        over = threading.Event()
        over.set()
        self._events.run(over)
        written = [request.body for request in self._server.requests]
        assert all((body["type"], body["reason"]) == ("Warning", EVENT) for body in written)
        return [(body["involvedObject"]["name"], body["message"]) for body in written]


@pytest.mark.parametrize(
    ("holder", "place", "why"),
    [
        (pod("p").wants(gpus=1), "ann", "its annotation gpudetour.io/assigned is missing"),
        (pod("p").wants(gpus=1).annotated(contract.ASSIGNED, "{"), "ann", "cannot be read"),
        (pod("p").wants(gpus=1).annotated(contract.ASSIGNED, '{"v":9}'), "ann", "cannot be read"),
        (pod("p").wants(gpus=2).assigned({"main": ["GPU-ann-0"]}), "ann", "does not name what"),
        (pod("p").wants(gpus=9000), "plug", "9000 devices"),
    ],
)
def test_the_owner_is_told_why(
    server: FakeApiServer, holder: PodBuilder, place: str, why: str
) -> None:
    watched = Watched(server)
    watched.told.pod(holder.on(place))

    ((name, message),) = watched.look()

    assert name == "p"
    assert f"GPUs of node {place}" in message
    assert why in message


def test_each_pod_is_told_of_once_and_again_when_it_comes_back(server: FakeApiServer) -> None:
    watched = Watched(server)
    garbage = pod("p").wants(gpus=1).annotated(contract.ASSIGNED, "{").on("ann")
    watched.told.pod(garbage)
    watched.told.pod(pod("fine").wants(gpus=1).on("plug"))

    assert [len(watched.look()) for _ in range(3)] == [1, 1, 1]

    watched.told.pod(garbage, EventKind.DELETED)
    assert len(watched.look()) == 1
    watched.told.pod(garbage.uid("another"))
    assert len(watched.look()) == 2


def test_they_are_counted_for_whoever_watches_metrics() -> None:
    told, registry = Told(*NODES), CollectorRegistry()
    Metrics(registry, snapshot=told.cluster.snapshot, epoch=lambda: 1)

    def counted() -> float | None:
        return registry.get_sample_value("gpudetour_extender_unclear_pods")

    told.pod(pod("fine").wants(gpus=1).on("plug"))
    assert counted() == 0
    told.pod(pod("p").wants(gpus=1).on("ann"))
    assert counted() == 1


def test_only_the_leader_speaks(server: FakeApiServer) -> None:
    watched = Watched(server)
    watched.leads = False
    watched.told.pod(pod("p").wants(gpus=1).on("ann"))

    assert watched.look() == []
    watched.leads = True
    assert len(watched.look()) == 1

"""The port that the scheduler calls: who may call, and that faults come as text in a 200."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from extender.app import create_app
from extender.binder import Binder
from extender.filtering import Filter
from extender.metrics import Metrics
from extender.patience import Patience
from extender.placement.shortlist import Choice
from extender.placement.strategies import binpack
from extender.preemption import Preemption
from tests.builders import node, pod
from tests.extender.ledgers import Told
from tests.fakes.binding_api import BindingApi

NODES = ("a", "b")
SCHEDULER = "gpudetour-scheduler"


class Peer(ssl.SSLSocket):
    """The server's end of a connection whose client proved a name."""

    def __init__(self, name: str | None) -> None:
        near, self.far = socket.socketpair()
        super(ssl.SSLSocket, self).__init__(fileno=near.detach())
        self._name = name

    def getpeercert(self, binary_form: bool = False) -> Any:
        del binary_form
        return {"subject": ((("commonName", self._name),),)} if self._name else {}

    def end(self) -> None:
        self.far.close()
        socket.socket.close(self)


class Port:
    """The application, called as the scheduler calls it."""

    def __init__(self, api: BindingApi) -> None:
        self.told = Told(*(node(name).with_gpus(1).annotation_path() for name in NODES))
        self.registry = CollectorRegistry()
        self.fault: str | None = None
        self.peer = Peer(SCHEDULER)
        cluster = self.told.cluster
        metrics = Metrics(self.registry, snapshot=cluster.snapshot, epoch=lambda: 1)
        app = create_app(
            Filter(
                cluster,
                choice=Choice(rank=binpack, limit=16),
                hold_seconds=5,
                patience=Patience(0.1),
            ),
            Binder(api.client(), cluster, epoch=lambda: 1, metrics=metrics),
            Preemption(cluster, evicting=False),
            metrics=metrics,
            not_ready=lambda: self.fault,
            client_name=SCHEDULER,
        )
        self.client: FlaskClient = app.test_client()

    def post(self, verb: str, body: Any, *, peer: Peer | None = None) -> Any:
        """Return the decoded answer, which must be a 200."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        environ = {"gunicorn.socket": peer or self.peer}
        answer = self.client.post(f"/{verb}", data=data, environ_base=environ)
        assert (answer.status_code, answer.content_type) == (200, "application/json")
        return json.loads(answer.data)

    def failures(self, verb: str) -> float | None:
        name = "gpudetour_extender_failures_total"
        return self.registry.get_sample_value(name, {"verb": verb})


@pytest.fixture
def api() -> Iterator[BindingApi]:
    with BindingApi(pod("p").wants(gpus=1)) as api:
        yield api


@pytest.fixture
def port(api: BindingApi) -> Iterator[Port]:
    port = Port(api)
    yield port
    port.peer.end()


def args(*names: str) -> dict[str, Any]:
    return {"Pod": pod("p").wants(gpus=1).raw(), "Nodes": None, "NodeNames": list(names)}


def binding(node_name: str) -> dict[str, str]:
    return {"PodName": "p", "PodNamespace": "default", "PodUID": "uid-p", "Node": node_name}


def test_filter_prioritize_and_bind(port: Port, api: BindingApi) -> None:
    filtered = port.post("filter", args("a", "b", "x"))
    scores = port.post("prioritize", args("a", "b"))
    (best,) = [entry["Host"] for entry in scores if entry["Score"] == 10]
    bound = port.post("bind", binding(best))

    assert sorted(filtered["NodeNames"]) == ["a", "b"]
    # kube-scheduler shows reasons only where nothing fits.
    assert filtered.keys() == {"NodeNames"}
    turned_away = port.post("filter", args("x"))["FailedAndUnresolvableNodes"]
    assert turned_away == {"x": "GPU inventory missing or unreadable"}
    assert bound == {"Error": ""}
    assert api.pods["default/p"]["spec"]["nodeName"] == best == filtered["NodeNames"][0]


def test_permanent_misfits_are_told_apart(port: Port) -> None:
    body = args("a", "b")
    body["Pod"] = pod("p").wants(gpus=2).raw()

    assert port.post("filter", body) == {
        "NodeNames": [],
        "FailedAndUnresolvableNodes": {"a": "fewer GPUs than asked", "b": "fewer GPUs than asked"},
    }


@pytest.mark.parametrize("verb", ["filter", "prioritize", "bind"])
@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"{" * 100, b"\xff", b'{"Pod":null}'])
def test_bad_bodies_are_told_what_is_wrong_and_change_nothing(
    port: Port, api: BindingApi, verb: str, body: bytes
) -> None:
    before = port.told.cluster.snapshot()

    answer = port.post(verb, body)

    assert answer["Error"]
    assert port.failures(verb) == 1
    assert port.told.cluster.snapshot() is before
    assert api.requests == []


def test_a_request_that_cannot_be_granted_is_explained(port: Port) -> None:
    body = args("a")
    body["Pod"] = pod("p").wants(gpus=5000).wants(container="c", gpus="1.5").raw()  # type: ignore[arg-type]

    error = port.post("filter", body)["Error"]

    assert "5000 devices are more than any node has" in error
    assert "container 'c'" in error


def test_who_does_not_serve_says_why_and_ends_the_connection(port: Port) -> None:
    for verb, body in (("filter", args("a")), ("prioritize", args("a")), ("bind", binding("a"))):
        peer = Peer(SCHEDULER)
        port.fault = "another replica leads"

        assert "another replica leads" in port.post(verb, body, peer=peer)["Error"]

        # The server reads the end of the stream next, whatever the scheduler sends.
        assert socket.socket.recv(peer, 1) == b""
        peer.end()


@pytest.mark.parametrize("name", [None, "", "system:kube-scheduler", "gpudetour-scheduler2"])
def test_only_the_schedulers_certificate_may_call(port: Port, name: str | None) -> None:
    peer = Peer(name)
    for path in ("/filter", "/bind", "/nothing"):
        environ = {"gunicorn.socket": peer}
        answer = port.client.post(path, data=b"{}", environ_base=environ)
        assert answer.status_code == 403
        assert b"gpudetour-scheduler" in answer.data
    assert port.client.post("/filter", data=b"{}").status_code == 403
    peer.end()


def test_other_methods_and_paths_do_not_exist(port: Port) -> None:
    environ = {"gunicorn.socket": port.peer}

    assert port.client.get("/filter", environ_base=environ).status_code == 405
    assert port.client.post("/evict", environ_base=environ).status_code == 404


def test_an_answer_grows_no_faster_than_the_list_of_names(port: Port) -> None:
    names = [f"node-{i}" for i in range(10_000)]

    assert port.post("filter", args(*names, "a")) == {"NodeNames": ["a"]}
    assert len(port.post("filter", args(*names))["FailedAndUnresolvableNodes"]) == 10_000

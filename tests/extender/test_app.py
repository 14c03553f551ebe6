"""The port that the scheduler calls: who may call, and that faults come as text in a 200."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.builders import pod
from tests.extender.port import SCHEDULER, Peer, Port, args, binding
from tests.fakes.binding_api import BindingApi


@pytest.fixture
def api() -> Iterator[BindingApi]:
    with BindingApi(pod("p").wants(gpus=1)) as api:
        yield api


@pytest.fixture
def port(api: BindingApi) -> Iterator[Port]:
    port = Port(api)
    yield port
    port.peer.end()


def test_filter_prioritize_and_bind(port: Port, api: BindingApi) -> None:
    turned_away = port.post("filter", args("x"))
    filtered = port.post("filter", args("a", "b", "x"))
    scores = port.post("prioritize", args("a", "b"))
    (best,) = [entry["Host"] for entry in scores if entry["Score"] == 10]
    bound = port.post("bind", binding(best))

    assert sorted(filtered["NodeNames"]) == ["a", "b"]
    # kube-scheduler shows reasons only where nothing fits.
    assert filtered.keys() == {"NodeNames"}
    assert turned_away["FailedAndUnresolvableNodes"] == {"x": "GPU inventory missing or unreadable"}
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

"""The do-nothing extender that gpudetour is compared with, and the connections that it uses."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from extender.__main__ import main as extender
from localcluster.bench.certificates import Certificates
from localcluster.bench.stub import Stub, respond
from localcluster.bench.systems import SHORTLIST
from localcluster.bench.wire import Wire, client_context, dial
from localcluster.kubeconfig import write_kubeconfig
from localcluster.ports import free_ports
from localcluster.processes import Processes
from localcluster.waiting import until

HOST = "extender.test"
CLIENT = "the-scheduler"


def stub(posted: list[tuple[str, Any]] | None = None, *, shortlist: int = 1) -> Stub:
    def bind(path: str, body: bytes) -> str:
        if posted is None:
            return "refused"
        posted.append((path, json.loads(body)))
        return ""

    return Stub(bind, shortlist=shortlist)


def asked(names: list[str]) -> bytes:
    return json.dumps({"Pod": {"spec": {}}, "Nodes": None, "NodeNames": names}).encode()


BIND = json.dumps(
    {"PodName": "p", "PodNamespace": "ns", "PodUID": "u-1", "Node": "node-1"}
).encode()


def test_the_stub_names_the_next_nodes_of_the_list_in_turn() -> None:
    asker = stub(shortlist=2)

    found = [json.loads(asker.filter(asked(["a", "b", "c", "d"])))["NodeNames"] for _ in range(3)]

    assert found == [["a", "b"], ["c", "d"], ["a", "b"]]


def test_the_stub_prefers_none() -> None:
    found = json.loads(stub().prioritize(asked(["a", "b"])))

    assert found == [{"Host": "a", "Score": 0}, {"Host": "b", "Score": 0}]


def test_the_stub_binds_with_one_plain_binding() -> None:
    posted: list[tuple[str, Any]] = []

    answer = json.loads(stub(posted).bind(BIND))

    assert answer == {"Error": ""}
    ((path, binding),) = posted
    assert path == "/api/v1/namespaces/ns/pods/p/binding"
    assert binding["metadata"] == {"name": "p", "uid": "u-1"}
    assert binding["target"]["name"] == "node-1"


def test_a_refused_binding_is_an_error_of_the_stub() -> None:
    assert json.loads(stub().bind(BIND)) == {"Error": "refused"}


def test_an_unknown_verb_is_not_found() -> None:
    assert respond(stub().verbs, b"POST /preempt HTTP/1.1", b"").startswith(b"HTTP/1.1 404")


def test_the_stub_names_as_many_nodes_as_the_extender_does_by_default() -> None:
    shown = CliRunner().invoke(extender, ["--help"]).output

    option = " ".join(shown[shown.index("--shortlist") :].split("--")[1].split())
    assert f"[default: {SHORTLIST}]" in option


@pytest.mark.parametrize(
    "message",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_messages_are_read_whole_however_they_arrive(message: bytes, size: int) -> None:
    ours, theirs = socket.socketpair()

    def send() -> None:
        for at in range(0, 2 * len(message), size):
            theirs.sendall((2 * message)[at : at + size])

    sender = threading.Thread(target=send)
    sender.start()
    with ours, theirs:
        wire = Wire(ours)
        bodies = [wire.read()[1] for _ in range(2)]
        sender.join()

    assert bodies == [b"hello", b"hello"]


def test_a_connection_that_ends_within_a_message_is_told() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        with pytest.raises(ConnectionError, match="closed"):
            Wire(ours).read()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Certificates]]:
    """The address of a running stub, and the certificates around it."""
    certificates = Certificates(tmp_path / "certs", host=HOST, client_name=CLIENT)
    certificates.issue()
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(
        kubeconfig,
        server="https://127.0.0.1:1",
        ca_file=certificates.client / "ca.crt",
        credentials=certificates.client_pair,
    )
    (port,) = free_ports(1)
    running = Processes(run=tmp_path / "run", logs=tmp_path / "logs", environment=os.environ)
    options = {
        "port": port,
        "tls-dir": certificates.server,
        "client-name": CLIENT,
        "kubeconfig": kubeconfig,
        "shortlist": 1,
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    running.start("stub", [sys.executable, "-m", "localcluster.bench.stub", *arguments])

    def listening() -> bool:
        running.check("stub")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(listening, timeout=20, what="the stub")
        yield f"https://127.0.0.1:{port}", certificates
    finally:
        running.stop_all()


def context_of(folder: Path) -> ssl.SSLContext:
    return client_context(
        ca_file=str(folder / "ca.crt"),
        cert_file=str(folder / "tls.crt"),
        key_file=str(folder / "tls.key"),
    )


def test_only_the_named_client_is_answered(served: tuple[str, Certificates]) -> None:
    url, certificates = served
    with closing(dial(url, context_of(certificates.client), name=HOST)) as wire:
        for _ in range(2):
            status, answer = wire.ask("POST /filter", asked(["a"]))
            assert (status, json.loads(answer)) == (200, {"NodeNames": ["a"]})
    other = dial(url, context_of(certificates.server), name=HOST)
    with closing(other), pytest.raises((ssl.SSLError, ConnectionError)):
        other.ask("POST /filter", asked(["a"]))


def test_a_client_without_a_certificate_is_turned_away(served: tuple[str, Certificates]) -> None:
    url, certificates = served
    nameless = ssl.create_default_context(cafile=str(certificates.client / "ca.crt"))

    with (
        closing(dial(url, nameless, name=HOST)) as wire,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        wire.ask("POST /filter", asked(["a"]))

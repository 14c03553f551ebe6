"""`python -m localcluster.bench.stub`: an extender that decides nothing, as fast as Python goes.

It is what gpudetour is compared with to learn what its ledger and its promises cost. It answers
filter with the next nodes of the list that it was sent, in turn, and it posts a plain Binding: an
extender that must say in one write which pod got which GPU has to bind itself, so a stub that left
the Binding to kube-scheduler would lack the one thing that no ledger can do without. All else is
left out: no ledger, no watch, no annotations, no frameworks, no policies in the API server and no
webhook. A thread reads and answers each connection. Client certificates are checked as the extender
does, once for each connection.
"""

from __future__ import annotations

import itertools
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from kube.connection import Connection, connect
from localcluster.bench.wire import Wire, client_context, dial

_BACKLOG = 128
_CREATED = 201

Answer = Callable[[bytes], bytes]


class _Asked(msgspec.Struct, rename="pascal"):
    """Body of filter and prioritize; the pod does not matter."""

    node_names: list[str]


class _Bind(msgspec.Struct, rename="pascal"):
    """Body of bind."""

    pod_name: str
    pod_namespace: str
    pod_uid: str = msgspec.field(name="PodUID")
    node: str


_ASKED = msgspec.json.Decoder(_Asked)
_BIND = msgspec.json.Decoder(_Bind)
_encode = msgspec.json.Encoder().encode


class Stub:
    """The three verbs. Thread-safe."""

    def __init__(self, bind: Callable[[str, bytes], str], *, shortlist: int) -> None:
        self._bind = bind
        self._shortlist = shortlist
        self._turns = itertools.count()
        self.verbs: Mapping[bytes, Answer] = {
            b"/filter": self.filter,
            b"/prioritize": self.prioritize,
            b"/bind": self.bind,
        }

    def filter(self, body: bytes) -> bytes:
        """Name the next nodes of the list, in turn."""
        names = _ASKED.decode(body).node_names
        first = next(self._turns) * self._shortlist % max(1, len(names))
        return _encode({"NodeNames": names[first : first + self._shortlist]})

    def prioritize(self, body: bytes) -> bytes:
        """Prefer none."""
        return _encode([{"Host": name, "Score": 0} for name in _ASKED.decode(body).node_names])

    def bind(self, body: bytes) -> bytes:
        """Bind to the node that the scheduler chose."""
        asked = _BIND.decode(body)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": asked.pod_name, "uid": asked.pod_uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": asked.node},
        }
        path = f"/api/v1/namespaces/{asked.pod_namespace}/pods/{asked.pod_name}/binding"
        return _encode({"Error": self._bind(path, _encode(binding))})


class Binder:
    """Posts Bindings; each thread has its own connection to the API server."""

    def __init__(self, connection: Connection) -> None:
        self._server = connection.server
        self._context = client_context(
            ca_file=connection.ca_file,
            cert_file=connection.client_cert_file or "",
            key_file=connection.client_key_file or "",
        )
        self._own = threading.local()

    def __call__(self, path: str, binding: bytes) -> str:
        """Return why the Binding was not taken, or nothing."""
        wire: Wire | None = getattr(self._own, "wire", None)
        if wire is None:
            wire = self._own.wire = dial(self._server, self._context)
        status, answer = wire.ask(f"POST {path}", binding)
        return "" if status == _CREATED else answer.decode()


def respond(verbs: Mapping[bytes, Answer], head: bytes, body: bytes) -> bytes:
    """The whole answer to one request."""
    answer = verbs.get(head.split(b" ", 2)[1])
    if answer is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    text = answer(body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(text) + text


def _serve(stub: Stub, *, port: int, context: ssl.SSLContext, client_name: str) -> None:
    def converse(sock: socket.socket) -> None:
        # A client that goes away, or cannot prove its name, is no concern of the others.
        with suppress(OSError), context.wrap_socket(sock, server_side=True) as secured:
            if not _is_named(secured, client_name):
                return
            wire = Wire(secured)
            while True:
                head, body = wire.read()
                wire.write(respond(stub.verbs, head, body))

    for sock in _accepted(port):
        threading.Thread(target=converse, args=(sock,), daemon=True).start()


def _accepted(port: int) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port), backlog=_BACKLOG) as listener:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock


def _is_named(secured: ssl.SSLSocket, client_name: str) -> bool:
    # typeshed types the subject loosely; it is a tuple of RDNs, each a tuple of (name, value).
    subject = dict(secured.getpeercert() or {}).get("subject", ())
    return (("commonName", client_name),) in tuple(subject)


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--tls-dir", type=click.Path(path_type=Path), required=True)
@click.option("--client-name", required=True)
@click.option("--kubeconfig", required=True)
@click.option("--shortlist", type=click.IntRange(1), required=True)
def main(port: int, tls_dir: Path, client_name: str, kubeconfig: str, shortlist: int) -> None:
    """Serve a do-nothing extender; `--tls-dir` holds tls.crt, tls.key and ca.crt."""
    # An ordinary end, at which the official client removes the keys that it wrote to files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls_dir / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls_dir / "tls.crt", tls_dir / "tls.key")
    stub = Stub(Binder(connect(kubeconfig)), shortlist=shortlist)
    _serve(stub, port=port, context=context, client_name=client_name)


if __name__ == "__main__":
    main()

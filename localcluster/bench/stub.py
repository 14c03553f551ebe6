"""`python -m localcluster.bench.stub`: an extender that decides nothing, as fast as Python goes.

It is what gpudetour is compared with to learn what its ledger and its promises cost. It answers
filter with the next nodes of the list that it was sent, in turn, and it posts a plain Binding: an
extender that must say in one write which pod got which GPU has to bind itself, so a stub that left
the Binding to kube-scheduler would lack the one thing that no ledger can do without. All else is
left out: no ledger, no watch, no annotations, no frameworks. A thread reads and answers each
connection. Client certificates are checked as the extender does, once for each connection.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from kube.connection import Connection, connect

_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CHUNK = 1 << 18
_BACKLOG = 128

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


class Wire:
    """HTTP/1.1 messages on one kept-alive TLS connection; they must tell their length."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._rest = b""

    def read(self) -> tuple[bytes, bytes]:
        """The head and the body of the next message. Raises `EOFError` at the end."""
        while (end := self._rest.find(_END_OF_HEAD)) < 0:
            self._receive()
        head, start = self._rest[:end], end + len(_END_OF_HEAD)
        needed = start + _length(head)
        if len(self._rest) < needed:
            self._fill(needed)
        body, self._rest = self._rest[start:needed], self._rest[needed:]
        return head, body

    def write(self, message: bytes) -> None:
        """Send one whole message."""
        self._sock.sendall(message)

    def _fill(self, needed: int) -> None:
        parts, have = [self._rest], len(self._rest)
        while have < needed:
            self._rest = b""
            self._receive()
            parts.append(self._rest)
            have += len(self._rest)
        self._rest = b"".join(parts)

    def _receive(self) -> None:
        received = self._sock.recv(_CHUNK)
        if not received:
            raise EOFError("the peer closed the connection")
        self._rest += received


class Stub:
    """The three verbs. Thread-safe; each thread has its own connection to the API server."""

    def __init__(self, connection: Connection, *, shortlist: int) -> None:
        self._shortlist = shortlist
        self._turns = itertools.count()
        self._binder = _Binder(connection)
        self.verbs: dict[bytes, Answer] = {
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
        fault = self._binder.bind(_BIND.decode(body))
        return _encode({"Error": fault})


class _Binder:
    """Posts Bindings, over one connection for each thread."""

    def __init__(self, connection: Connection) -> None:
        self._server = urlsplit(connection.server)
        self._context = ssl.create_default_context(cafile=connection.ca_file)
        if connection.client_cert_file is not None:
            self._context.load_cert_chain(connection.client_cert_file, connection.client_key_file)
        self._own = threading.local()

    def bind(self, asked: _Bind) -> str:
        """Post a Binding; return why it was not taken, or nothing."""
        body = _encode(
            {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": asked.pod_name, "uid": asked.pod_uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": asked.node},
            }
        )
        path = f"/api/v1/namespaces/{asked.pod_namespace}/pods/{asked.pod_name}/binding"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._server.netloc}\r\nAccept: application/json\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        wire = self._wire()
        wire.write(head.encode() + body)
        answer, text = wire.read()
        return "" if answer.split(b" ", 2)[1] == b"201" else text.decode()

    def _wire(self) -> Wire:
        known: Wire | None = getattr(self._own, "wire", None)
        if known is None:
            address = (self._server.hostname or "", self._server.port or 443)
            sock = socket.create_connection(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            known = Wire(self._context.wrap_socket(sock, server_hostname=address[0]))
            self._own.wire = known
        return known


def respond(verbs: dict[bytes, Answer], head: bytes, body: bytes) -> bytes:
    """The whole answer to one request."""
    answer = verbs.get(head.split(b" ", 2)[1])
    if answer is None:
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    text = answer(body)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(text)
        + text
    )


def serve(stub: Stub, *, port: int, context: ssl.SSLContext, client_name: str) -> None:
    """Serve on the loopback address for ever."""
    for sock in _accepted(port):
        threading.Thread(
            target=_converse, args=(stub, sock, context, client_name), daemon=True
        ).start()


def _accepted(port: int) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", port), backlog=_BACKLOG) as listener:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock


def _converse(stub: Stub, sock: socket.socket, context: ssl.SSLContext, client_name: str) -> None:
    # A client that goes away, or cannot prove its name, is no concern of the others.
    with suppress(OSError, EOFError), sock:
        secured = context.wrap_socket(sock, server_side=True)
        if not _is_named(secured, client_name):
            return
        wire = Wire(secured)
        while True:
            head, body = wire.read()
            wire.write(respond(stub.verbs, head, body))


def _is_named(secured: ssl.SSLSocket, client_name: str) -> bool:
    # typeshed types the subject loosely; it is a tuple of RDNs, each a tuple of (name, value).
    subject = dict(secured.getpeercert() or {}).get("subject", ())
    return (("commonName", client_name),) in tuple(subject)


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    if at < 0:
        raise EOFError("the message does not tell its length")
    return int(lowered[at + len(_LENGTH) :].partition(b"\r\n")[0])


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--tls-dir", type=click.Path(path_type=Path), required=True)
@click.option("--client-name", required=True)
@click.option("--kubeconfig", required=True)
@click.option("--shortlist", type=click.IntRange(1), required=True)
def main(port: int, tls_dir: Path, client_name: str, kubeconfig: str, shortlist: int) -> None:
    """Serve a do-nothing extender; `--tls-dir` holds tls.crt, tls.key and ca.crt."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls_dir / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls_dir / "tls.crt", tls_dir / "tls.key")
    stub = Stub(connect(kubeconfig), shortlist=shortlist)
    serve(stub, port=port, context=context, client_name=client_name)


if __name__ == "__main__":
    main()

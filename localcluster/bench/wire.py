"""HTTP/1.1 on one kept-alive TLS connection, with as little work for a message as Python allows.

For the stub, and for asking so fast that the one who asks is not what is measured. Messages tell
their length or come in chunks; nothing else is understood.
"""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

_END_OF_LINE = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CHUNKED = b"transfer-encoding: chunked"
_RECEIVE = 1 << 18


class Wire:
    """Whole messages, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""

    def read(self) -> tuple[bytes, bytes]:
        """The head and the body of the next message. Raises `ConnectionError` at the end."""
        head = self._until(_END_OF_HEAD)
        lowered = head.lower()
        at = lowered.find(_LENGTH)
        if at >= 0:
            return head, self._exactly(int(lowered[at + len(_LENGTH) :].partition(_END_OF_LINE)[0]))
        if _CHUNKED in lowered:
            return head, self._chunks()
        raise ConnectionError("the message does not tell its length")

    def write(self, message: bytes) -> None:
        """Send one whole message."""
        self._sock.sendall(message)

    def ask(self, start: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request, of which `start` is "POST /path", and return status and body."""
        self.write(
            f"{start} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head, answer = self.read()
        return int(head.split(b" ", 2)[1]), answer

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self._until(_END_OF_LINE), 16):
            parts.append(self._exactly(size))
            self._until(_END_OF_LINE)
        self._until(_END_OF_LINE)
        return b"".join(parts)

    def _until(self, end: bytes) -> bytes:
        while (at := self._rest.find(end)) < 0:
            self._rest += self._receive()
        found, self._rest = self._rest[:at], self._rest[at + len(end) :]
        return found

    def _exactly(self, size: int) -> bytes:
        parts, have = [self._rest], len(self._rest)
        while have < size:
            parts.append(self._receive())
            have += len(parts[-1])
        whole = b"".join(parts) if len(parts) > 1 else parts[0]
        self._rest = whole[size:]
        return whole[:size] if self._rest else whole

    def _receive(self) -> bytes:
        received = self._sock.recv(_RECEIVE)
        if not received:
            raise ConnectionError("the peer closed the connection")
        return received


def dial(server: str, context: ssl.SSLContext, *, name: str | None = None) -> Wire:
    """Connect to the host and port of a URL; `name` is what its certificate says, if not that."""
    address = urlsplit(server)
    host = address.hostname or ""
    sock = socket.create_connection((host, address.port or 443))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Wire(context.wrap_socket(sock, server_hostname=name or host))


def client_context(*, ca_file: str | None, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Trusts one authority, and proves who we are."""
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(cert_file, key_file)
    return context

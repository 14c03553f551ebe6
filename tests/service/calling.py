"""HTTPS calls to a server under test."""

from __future__ import annotations

import socket
import ssl

import urllib3


def client_context(
    trusted: bytes, *, cert_file: str | None = None, key_file: str | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trusted.decode())
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file)
    return context


def post(
    port: int, context: ssl.SSLContext, body: bytes = b"hello", *, path: str = "/"
) -> urllib3.BaseHTTPResponse:
    """Send one request on a connection of its own."""
    with urllib3.PoolManager(ssl_context=context, retries=False, timeout=15.0) as pool:
        url = f"https://127.0.0.1:{port}{path}"
        return pool.request("POST", url, body=body, headers={"Content-Type": "application/json"})


def served_certificate(port: int, context: ssl.SSLContext) -> str:
    """Return the certificate that the server presents now, as PEM."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=15.0) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
    ):
        binary = sock.getpeercert(binary_form=True)
    assert binary is not None
    return ssl.DER_cert_to_PEM_cert(binary)

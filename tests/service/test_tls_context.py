"""Contexts follow their files; sockets give up on peers that are too slow."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from certs.authority import KeyPair
from service import tls
from service.tls import FollowingContext, TlsError, peer_common_name
from tests.certs.making import Mounted, authority, server


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    files = Mounted(tmp_path / "tls")
    files.put(server(authority()))
    return files


def following(mounted: Mounted) -> FollowingContext:
    return FollowingContext(cert_file=mounted.cert_file, key_file=mounted.key_file)


def test_unchanged_files_give_the_same_context(mounted: Mounted) -> None:
    follow = following(mounted)

    assert follow() is follow()


def test_changed_files_give_a_new_context(mounted: Mounted) -> None:
    follow = following(mounted)
    before = follow()
    mounted.put(server(authority()))

    assert follow() is not before


def test_files_that_do_not_fit_together_leave_the_last_context_and_are_told_once(
    mounted: Mounted,
) -> None:
    follow = following(mounted)
    good = follow()
    mismatch = KeyPair(certificate=server(authority()).certificate, key=server(authority()).key)
    mounted.put(mismatch)
    with capture_logs() as records:
        assert follow() is good
        assert follow() is good

    assert [r["event"] for r in records] == ["certificates unusable, the last ones stay"]
    mounted.put(server(authority()))
    assert follow() is not good


def test_vanished_files_leave_the_last_context(mounted: Mounted) -> None:
    follow = following(mounted)
    good = follow()
    Path(mounted.key_file).unlink()

    assert follow() is good


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key"])
@pytest.mark.parametrize("content", [None, b"", b"not PEM"])
def test_the_first_context_needs_usable_files(
    mounted: Mounted, broken: str, content: bytes | None
) -> None:
    path = mounted.folder / broken
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(TlsError, match="cannot serve TLS"):
        following(mounted)


def test_a_peer_that_does_not_take_its_answer_is_dropped(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped, peer = connected(mounted)
    monkeypatch.setattr(tls, "ANSWER_TIMEOUT", 0.05)
    with wrapped, peer:
        wrapped.setblocking(True)
        with pytest.raises(ConnectionResetError):
            wrapped.sendall(b"x" * 10_000_000)


def test_without_a_client_certificate_there_is_no_common_name(mounted: Mounted) -> None:
    wrapped, peer = connected(mounted)
    with wrapped, peer:
        assert peer_common_name({"gunicorn.socket": wrapped}) is None
        assert peer_common_name({}) is None


def connected(mounted: Mounted) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Return the two ends of a connection after its handshake."""
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    peer = context.wrap_socket(theirs, do_handshake_on_connect=False)
    wrapped = following(mounted)().wrap_socket(
        ours, server_side=True, do_handshake_on_connect=False
    )
    handshake = threading.Thread(target=peer.do_handshake)
    handshake.start()
    wrapped.do_handshake()
    handshake.join()
    return wrapped, peer

"""Carrying the bytes of one TCP connection over to another, both ways, until both have ended."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_CHUNK = 64 * 1024


def carry(client: socket.socket, server: socket.socket) -> None:
    """Carry bytes both ways until both sides have ended; the sockets stay the caller's to close."""
    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
    back.start()
    _pump(client, server)
    back.join()


def shut(connection: socket.socket, how: int) -> None:
    """Shut a connection down, whether or not it still is one."""
    with suppress(OSError):  # not connected any more
        connection.shutdown(how)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way until their source ends or the target takes no more."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
    except OSError:  # one side was reset: so is the other
        shut(source, socket.SHUT_RDWR)
        shut(target, socket.SHUT_RDWR)
    else:
        shut(target, socket.SHUT_WR)

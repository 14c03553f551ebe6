"""The relay: carries ports of the machine's loopback address to the same ports in another network
namespace.

Run as `python -m localcluster.node.relay NAMESPACE READY PORT...`: it listens outside, moves into
the network namespace of the file NAMESPACE, makes the file READY, and opens the other halves of
its connections from there.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import socket
import sys
import threading
from pathlib import Path

from localcluster.carrying import carry

_LOOPBACK = "127.0.0.1"
_CLONE_NEWNET = 0x40000000  # of setns(2)
_CONNECT_TIMEOUT = 5.0
_BACKLOG = 128


def main(namespace: Path, ready: Path, ports: list[int]) -> None:
    """Listen, move inside, then carry connections for ever."""
    listeners = [socket.create_server((_LOOPBACK, port), backlog=_BACKLOG) for port in ports]
    # Before any thread starts: the call moves the calling thread, and new ones begin where it is.
    _enter(namespace)
    threads = [threading.Thread(target=_accept, args=(each,)) for each in listeners]
    for thread in threads:
        thread.start()
    ready.touch()
    for thread in threads:
        thread.join()


def _enter(namespace: Path) -> None:
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    with namespace.open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))


def _accept(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_serve, args=(client, port), daemon=True).start()


def _serve(client: socket.socket, port: int) -> None:
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            server = socket.create_connection((_LOOPBACK, port), _CONNECT_TIMEOUT)
        except OSError:  # nobody serves there now; the peer sees its connection end
            return
        with server:
            server.settimeout(None)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            carry(client, server)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(port) for port in sys.argv[3:]])

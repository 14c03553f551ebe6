"""gRPC over unix sockets that others create, remove and replace at any time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

#: Channels of one process share connections, and their patience after failures, by address. A
#: socket that was just created again must not wait for the backoff that its predecessor earned.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@contextmanager
def dial(socket: Path) -> Iterator[grpc.Channel]:
    """Open a channel for a few calls; it connects at the first of them."""
    channel = grpc.insecure_channel(f"unix://{socket}", options=_OPTIONS)
    try:
        yield channel
    finally:
        channel.close()


def explain(error: Exception) -> str:
    """Return one line on what went wrong with a call."""
    if not isinstance(error, grpc.Call):
        return str(error) or type(error).__name__
    name = error.code().name
    return f"{name}: {error.details()}" if error.details() else name

"""Choosing free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

_LOWEST, _HIGHEST = 20_000, 32_000
"""Below the range from which Linux takes ports for outgoing connections, so that none of those gets
in between.
"""


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on now; another program could still take one."""
    chosen: list[int] = []
    candidates = random.SystemRandom().sample(range(_LOWEST, _HIGHEST), _HIGHEST - _LOWEST)
    with ExitStack() as bound:
        for port in candidates:
            if len(chosen) == count:
                return chosen
            probe = bound.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen.append(port)
    raise OSError(f"no {count} free TCP ports between {_LOWEST} and {_HIGHEST} on 127.0.0.1")

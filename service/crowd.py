"""Connections that have brought no request yet: who of them has to leave when there are too many.

What they brought so far decides first, then how long they are there: a client that means well sends
its first bytes at once and its request right after. Nothing is closed here.
"""

from __future__ import annotations

import resource
from enum import Enum
from typing import Any

#: Connections that are open at once, and open files beside them: listeners, health, API server.
CONNECTIONS = 1536
_OTHER_FILES = 64
_FEWEST = 16


class Stage(Enum):
    """What a stranger has brought; the first has to leave first."""

    SILENT = "nothing"
    SHAKING = "a part of the handshake"
    QUIET = "the handshake"
    SENDING = "a part of a request"

    @property
    def secured(self) -> bool:
        """Whether the handshake is done."""
        return self in (Stage.QUIET, Stage.SENDING)

    @property
    def idle(self) -> bool:
        """Whether nothing has been begun that would be cut off."""
        return self in (Stage.SILENT, Stage.QUIET)


#: Seconds that a new connection has in any case. First bytes come with it, the rest needs answers.
_GRACE = {Stage.SILENT: 0.1, Stage.SHAKING: 0.5, Stage.QUIET: 0.5, Stage.SENDING: 0.5}


class Crowd:
    """The strangers by what they have brought. Of one connection, `peer` is asked.

    Each `conn` has a `peer` with `stage`, `since` and `busy`. In each stage those come first that
    have been in it longest, and nobody goes back.
    """

    def __init__(self) -> None:
        self._by_stage: dict[Stage, dict[Any, None]] = {stage: {} for stage in Stage}
        self._stages: dict[Any, Stage] = {}

    def __len__(self) -> int:
        return len(self._stages)

    def put(self, conn: Any) -> None:
        """Take a connection in, or see what it has brought meanwhile."""
        stage, before = conn.peer.stage, self._stages.get(conn)
        if stage is not before:
            if before is not None:
                del self._by_stage[before][conn]
            self._by_stage[stage][conn] = None
            self._stages[conn] = stage

    def remove(self, conn: Any) -> None:
        """Forget a connection; harmless when it is not there."""
        stage = self._stages.pop(conn, None)
        if stage is not None:
            del self._by_stage[stage][conn]

    def first_to_leave(self, now: float) -> Any | None:
        """Return whom to close for somebody else: never one that a thread works on, nor one that
        just came; `now` is monotonic.
        """
        for stage, conns in self._by_stage.items():
            waiting = next((conn for conn in conns if not conn.peer.busy), None)
            if waiting is not None and waiting.peer.since < now - _GRACE[stage]:
                return waiting
        return None


def places() -> int:
    """Return how many connections there may be; raises the limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(_FEWEST, min(CONNECTIONS, soft - _OTHER_FILES))

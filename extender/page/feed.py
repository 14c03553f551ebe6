"""What viewers get: everything once, and then only what changed since the version that they have.

Nothing is done while nobody looks. What one viewer made necessary, all others share.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from gzip import compress

import msgspec

from extender.cluster import Cluster
from extender.page.answers import Answers
from extender.page.details import details_of
from extender.page.nodes import NodeView, node_view
from extender.page.notes import Notes
from extender.page.queue import Queue, queue_of
from extender.placement.ledger import Ledger
from gpus.model import DeviceId, NodeName

#: Seconds between two looks at the ledger, at least; and by how much longer than the last look
#: took, so that viewers take no more than a tenth of a core.
_EVERY = 0.5
_TIMES = 10
#: Nodes that are gone and remembered, so that viewers hear of it.
_MOST_GONE = 1024
#: gzip's: a large answer is made once for each version, while the scheduler waits for this core.
_LEVEL = 5

_json = msgspec.json.Encoder()


class Found(msgspec.Struct, frozen=True):
    """Where a device is: the node and the place of its cell."""

    node: str
    cell: int


@dataclass(frozen=True, slots=True)
class Message:
    """An answer as it is, and packed by gzip."""

    plain: bytes
    packed: bytes


class Feed:
    """The state of the page in versions; thread-safe.

    `not_serving` tells why this replica does not know who holds what, or None. A version is known
    to the process that made it; any other gets everything.
    """

    def __init__(
        self,
        cluster: Cluster,
        notes: Notes,
        answers: Answers,
        *,
        not_serving: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._notes = notes
        self._answers = answers
        self._not_serving = not_serving
        self._clock = clock
        self._process = uuid.uuid4().hex[:12]
        self._lock = threading.Lock()  # guards the rest
        self._next_look = float("-inf")
        self._ledger = Ledger()
        self._answered = -1
        self._why: str | None = "nothing was looked at yet"
        self._number = 0
        #: By node, as JSON, and the number of the version that brought it.
        self._nodes: dict[NodeName, tuple[bytes, int]] = {}
        self._gone: dict[NodeName, int] = {}
        #: Up to this number it is forgotten who is gone.
        self._forgotten = 0
        self._queue: tuple[bytes, int] = (_json.encode(Queue()), 0)
        self._messages: dict[int, Message] = {}

    def since(self, version: str) -> Message:
        """Return what changed since a version; everything where it is empty or not known here."""
        with self._lock:
            self._look()
            number = self._known(version)
            message = self._messages.get(number)
            if message is None:
                plain = self._message(number)
                message = self._messages[number] = Message(plain, compress(plain, _LEVEL, mtime=0))
            return message

    def node(self, name: NodeName) -> bytes | None:
        """Return all that is known of a node; None where there is none of that name."""
        view = self._view(name, self._cluster.snapshot(), leading=self._not_serving() is None)
        return _json.encode(details_of(view, self._notes.of(name))) if view is not None else None

    def device(self, device: DeviceId) -> bytes | None:
        """Return where a device is, a MIG instance or a GPU; None where it is nowhere."""
        for name in self._cluster.snapshot().nodes.flat():
            devices = self._notes.of(name).devices
            mask = devices.mask([device]) if devices is not None else 0
            if mask:
                return _json.encode(Found(node=name, cell=(mask & -mask).bit_length() - 1))
        return None

    def _known(self, version: str) -> int:
        """Return the number of a version, and 0 where everything must be told."""
        process, _, text = version.partition("-")
        if process != self._process or not (text.isascii() and text.isdigit() and len(text) < 20):
            return 0
        number = int(text)
        return number if self._forgotten <= number <= self._number else 0

    def _look(self) -> None:
        began = self._clock()
        if began < self._next_look:
            return
        self._take(self._cluster.snapshot(), self._answers.version, self._not_serving())
        ended = self._clock()
        self._next_look = ended + max(_EVERY, _TIMES * (ended - began))

    def _take(self, ledger: Ledger, answered: int, why: str | None) -> None:
        touched: Iterable[NodeName] = self._notes.touched()
        before = self._number
        if (why is None) != (self._why is None):
            touched = {*touched, *ledger.nodes, *self._nodes}
        if ledger is not self._ledger:
            touched = {*touched, *ledger.nodes.differing(self._ledger.nodes)}
        for name in touched:
            self._put(name, self._view(name, ledger, leading=why is None), before + 1)
        if ledger is not self._ledger or answered != self._answered or why != self._why:
            queue = _json.encode(queue_of(ledger, self._answers.of) if why is None else Queue())
            if queue != self._queue[0]:
                self._queue, self._number = (queue, before + 1), before + 1
        if why != self._why:
            self._number = before + 1
        self._ledger, self._answered, self._why = ledger, answered, why
        if self._number != before:
            self._messages.clear()

    def _put(self, name: NodeName, view: NodeView | None, number: int) -> None:
        known = self._nodes.get(name)
        if view is None:
            if known is not None:
                del self._nodes[name]
                self._gone[name] = self._number = number
                if len(self._gone) > _MOST_GONE:
                    self._forgotten = self._gone.pop(next(iter(self._gone)))
            return
        encoded = _json.encode(view)
        if known is None or known[0] != encoded:
            self._nodes[name] = encoded, number
            self._number = number
            self._gone.pop(name, None)

    def _view(self, name: NodeName, ledger: Ledger, *, leading: bool) -> NodeView | None:
        state = ledger.nodes.get(name)
        if state is None:
            return None
        return node_view(name, state, self._notes.of(name), leading=leading)

    def _message(self, since: int) -> bytes:
        head = {"version": f"{self._process}-{self._number}", "full": since == 0, "why": self._why}
        parts = [_json.encode(head)[1:-1]]
        nodes = (text for text, number in self._nodes.values() if number > since)
        parts.append(b'"nodes":[' + b",".join(nodes) + b"]")
        if since:
            gone = [name for name, number in self._gone.items() if number > since]
            parts.append(b'"gone":' + _json.encode(gone))
        if self._queue[1] > since or not since:
            parts.append(b'"queue":' + self._queue[0])
        return b"{" + b",".join(parts) + b"}"

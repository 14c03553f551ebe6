"""Whatever happens to the connection, the handler ends up knowing what the API server has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import convert

from kube.errors import Gone
from kube.objects import Pod
from kube.watch import BadLine, Event, EventKind, Mirror
from tests.kube.wire import bookmark, error, line, pod

NAMES = st.sampled_from(["a", "b", "c"])


class MirrorMachine(RuleBasedStateMachine):
    """A server that only moves forward, a connection that does not, and one mirror."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 100
        self.truth: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, bytes]] = []
        self.mirror = Mirror(Pod)
        self.folded: dict[str, Pod] = {}
        self.lives: dict[str, list[EventKind]] = {}

    @initialize()
    def first_listing(self) -> None:
        self.relist()

    @rule(name=NAMES)
    def server_writes(self, name: str) -> None:
        self.version += 1
        known = self.truth.get(name)
        uid = known["metadata"]["uid"] if known else f"{name}-{self.version}"
        self.truth[name] = pod(name, version=self.version, uid=uid)
        self.history.append(
            (self.version, line("MODIFIED" if known else "ADDED", self.truth[name]))
        )

    @rule(name=NAMES)
    def server_deletes(self, name: str) -> None:
        if (known := self.truth.pop(name, None)) is not None:
            self.version += 1
            last = pod(name, version=self.version, uid=known["metadata"]["uid"])
            self.history.append((self.version, line("DELETED", last)))

    @rule()
    def relist(self) -> None:
        items = [convert(found, Pod) for found in self.truth.values()]
        self.fold(self.mirror.relisted(items, version=str(self.version)))

    @rule(count=st.integers(1, 4))
    def some_lines_arrive_and_the_connection_ends(self, count: int) -> None:
        for _, text in self.unseen()[:count]:
            self.fold(self.mirror.line(text))

    @rule(cut=st.integers(1, 200))
    def a_line_arrives_cut(self, cut: int) -> None:
        for _, text in self.unseen()[:1]:
            with contextlib.suppress(BadLine):
                self.fold(self.mirror.line(text[:-1][:-cut] or b"{"))

    @rule()
    def an_error_arrives(self) -> None:
        with contextlib.suppress(Gone):
            self.mirror.line(error(410))

    @rule()
    def a_bookmark_arrives_after_everything(self) -> None:
        if not self.unseen():
            self.version += 1
            self.fold(self.mirror.line(bookmark(self.version)))

    @invariant()
    def what_was_told_is_what_is_held(self) -> None:
        assert len(self.folded) == len(self.mirror)

    def teardown(self) -> None:
        for _, text in self.unseen():
            self.fold(self.mirror.line(text))
        assert {name: found.metadata.resource_version for name, found in self.folded.items()} == {
            name: found["metadata"]["resourceVersion"] for name, found in self.truth.items()
        }
        for life in self.lives.values():
            assert life[0] is EventKind.ADDED
            assert EventKind.ADDED not in life[1:]
            assert EventKind.DELETED not in life[:-1]

    def unseen(self) -> list[tuple[int, bytes]]:
        """What a watch from the mirror's version would bring; only the server compares versions."""
        since = int(self.mirror.version or 0)
        return [(version, text) for version, text in self.history if version > since]

    def fold(self, events: Iterable[Event[Pod]]) -> None:
        for event in events:
            meta = event.object.metadata
            self.lives.setdefault(meta.uid, []).append(event.kind)
            if event.kind is EventKind.DELETED:
                del self.folded[meta.name]
            else:
                assert (meta.name in self.folded) == (event.kind is EventKind.MODIFIED)
                self.folded[meta.name] = event.object


TestMirrorMachine = MirrorMachine.TestCase

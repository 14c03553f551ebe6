"""What the tests of the page share: a page that hears of built nodes and pods, and its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from extender.cluster import Cluster
from extender.page.answers import Answers
from extender.page.feed import Feed
from extender.page.notes import Notes
from extender.placement.facts import read_pod
from extender.placement.shortlist import Decision
from gpus.model import NodeName
from kube.objects import Node
from kube.reflector import Event, EventKind
from tests.builders import NodeBuilder, PodBuilder

Object = dict[str, Any]


class Fleet:
    """A ledger and the feed that shows it; without a clock time stands still until it is moved."""

    def __init__(self, *nodes: NodeBuilder, clock: Callable[[], float] | None = None) -> None:
        self.now = 0.0
        self.why: str | None = None
        self.cluster, self.notes, self.answers = Cluster(), Notes(), Answers()
        self.feed = Feed(
            self.cluster,
            self.notes,
            self.answers,
            not_serving=lambda: self.why,
            clock=clock or (lambda: self.now),
        )
        for node in nodes:
            self.node(node)

    def node(self, node: NodeBuilder, kind: EventKind = EventKind.MODIFIED, **spec: Any) -> None:
        """Deliver an event of a node."""
        event = Event(kind, msgspec.convert({**node.raw(), "spec": spec}, Node))
        self.notes.on_node(event)
        self.cluster.on_node(event)

    def pod(self, pod: PodBuilder, kind: EventKind = EventKind.MODIFIED) -> None:
        """Deliver an event of a pod."""
        self.cluster.on_pod(Event(kind, pod.build()))

    def refuse(self, pod: PodBuilder, **reasons: int) -> None:
        """Answer that nothing fits; `in_use=3` refuses at three nodes for "in use"."""
        busy = {
            NodeName(f"{text}-{number}"): text.replace("_", " ")
            for text, count in reasons.items()
            for number in range(count)
        }
        self.answers.tell(read_pod(pod.build()), Decision(nodes=[], busy=busy, unfit={}))

    def since(self, version: str = "") -> Object:
        """Return what a viewer is told who looks a second later."""
        self.now += 1.0
        message: Object = msgspec.json.decode(self.feed.since(version).plain)
        return message

    def view(self, name: str) -> Object:
        """Return one node as it is shown."""
        views: dict[str, Object] = {node["name"]: node for node in self.since()["nodes"]}
        return views[name]

    def states(self, name: str) -> list[str]:
        """Return the states of a node's cells."""
        return [cell["state"] for cell in self.view(name)["cells"]]

    def details(self, name: str) -> Object:
        """Return the details of a node."""
        found = self.feed.node(NodeName(name))
        assert found is not None
        details: Object = msgspec.json.decode(found)
        return details

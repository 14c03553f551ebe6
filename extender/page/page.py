"""The parts of the page, put together for the process that serves it."""

from __future__ import annotations

from collections.abc import Callable

from extender.cluster import Cluster
from extender.page.answers import Answers
from extender.page.feed import Feed
from extender.page.notes import Notes
from extender.page.site import Site
from kube.objects import Node
from kube.reflector import Event
from service.side_port import Site as Answering


class Page:
    """Needs to hear of nodes before the ledger does, and of all answers to the scheduler."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._notes = Notes()
        self.answers = Answers()

    def on_node(self, event: Event[Node]) -> None:
        """Take one event of the Node watch in, and fold it into the ledger."""
        self._notes.on_node(event)
        self._cluster.on_node(event)

    def site(self, not_serving: Callable[[], str | None]) -> Answering:
        """Return what answers viewers; `not_serving` as for `Feed`."""
        feed = Feed(self._cluster, self._notes, self.answers, not_serving=not_serving)
        return Site(feed).answer

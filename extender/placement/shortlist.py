"""Sorts all nodes that kube-scheduler names into fitting and not, and picks the best few.

A `Standing` knows how well every node fits one ask and looks again only at nodes that changed, so
what a filter costs beyond reading the names does not grow with the cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

from extender.placement.fit import Ask, fits
from extender.placement.layout import remember
from extender.placement.patches import Patched
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import NodeState
from extender.placement.strategies import Rank, strategy
from gpus.model import NodeName

#: A rank when the node fits, else the reason that the scheduler is told.
Verdict = int | Reason

_UNSEEN = NodeState()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How to choose: by which rank, and how many nodes to name at most (0: all)."""

    rank: Rank
    limit: int

    def rank_for(self, ask: Ask) -> Rank:
        """Return how to rank for a pod: by the policy that it wishes, if it does."""
        policy = ask.wishes.policy
        return self.rank if policy is None else strategy(policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The nodes to use, best first; where there is none, the reason of every node.

    kube-scheduler shows reasons only when no node is left, and would read thousands for each pod.
    """

    nodes: list[NodeName]
    busy: dict[NodeName, str]
    unfit: dict[NodeName, str]


class Standing:
    """How well each node fits one ask, as of the ledger that was followed last. Not thread-safe."""

    def __init__(self, ask: Ask, choice: Choice) -> None:
        self._ask = ask
        self._rank = choice.rank_for(ask)
        self._limit = choice.limit
        self._nodes: Patched[NodeName, NodeState] = Patched()
        #: Thousands of nodes are of a few models, and most are in one of a few situations.
        self._alike: dict[Hashable, Verdict] = {}
        self._verdicts: dict[NodeName, Verdict] = {}
        #: Fitting nodes by rank; of one rank, that which came to it last is last.
        self._fitting: defaultdict[int, dict[NodeName, None]] = defaultdict(dict)

    def follow(self, nodes: Patched[NodeName, NodeState]) -> None:
        """Judge the nodes that are not what they were."""
        for name in nodes.differing(self._nodes):
            old = self._verdicts.pop(name, None)
            if isinstance(old, int):
                del self._fitting[old][name]
                if not self._fitting[old]:
                    del self._fitting[old]
            state = nodes.get(name)
            if state is not None:
                verdict = self._verdicts[name] = self.verdict(state)
                if isinstance(verdict, int):
                    self._fitting[verdict][name] = None
        self._nodes = nodes

    def decide(
        self, names: Collection[NodeName], *, own: Mapping[NodeName, NodeState], turn: int
    ) -> Decision:
        """Pick among the named nodes.

        `own` holds nodes as only this pod sees them, because something there is kept for it.
        `turn` rotates nodes of equal rank, so that not every pod is sent to the same few.
        """
        apart = {name: self.verdict(state) for name, state in own.items()}
        fitting = (name for name in self._in_order(apart, turn) if name in names)
        best = list(islice(fitting, self._limit or None))
        if best:
            return Decision(nodes=best, busy={}, unfit={})
        busy: dict[NodeName, str] = {}
        unfit: dict[NodeName, str] = {}
        unseen = self.verdict(_UNSEEN)
        for name in names:
            verdict = apart.get(name) or self._verdicts.get(name, unseen)
            if isinstance(verdict, Reason):
                (unfit if verdict.permanent else busy)[name] = verdict.text
        return Decision(nodes=[], busy=busy, unfit=unfit)

    def verdict(self, state: NodeState) -> Verdict:
        """Return how well a node fits, or why it does not."""
        alike = self._ask.likeness(state)
        if alike is None:
            return self._judge(state)
        known = self._alike.get(alike)
        return remember(self._alike, alike, self._judge(state)) if known is None else known

    def _judge(self, state: NodeState) -> Verdict:
        fit = fits(self._ask, state)
        return fit.main if isinstance(fit, Rejection) else self._rank(fit)

    def _in_order(self, apart: Mapping[NodeName, Verdict], turn: int) -> Iterator[NodeName]:
        special = {verdict for verdict in apart.values() if isinstance(verdict, int)}
        for rank in sorted({*self._fitting, *special}, reverse=True):
            ties = self._fitting.get(rank, {})
            start = turn % max(1, len(ties))
            yield from (name for name, verdict in apart.items() if verdict == rank)
            yield from _without(chain(islice(ties, start, None), islice(ties, start)), apart)


def _without(names: Iterable[NodeName], apart: Mapping[NodeName, Verdict]) -> Iterable[NodeName]:
    return (name for name in names if name not in apart) if apart else names

"""Filter and prioritize: the scheduler's question about one pod and many nodes. No API call.

kube-scheduler asks about the next pod before it has bound this one. So the best node of the
answer is held for this pod a moment: the next filter does not promise the same GPU, and prioritize
makes the scheduler follow.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection

from extender.cluster import Cluster
from extender.patience import Patience
from extender.placement.facts import PodFacts
from extender.placement.fit import Ask, ask_of
from extender.placement.ledger import Ledger
from extender.placement.reasons import Reason
from extender.placement.shortlist import Choice, Decision, Standing
from extender.placement.state import NodeState
from extender.protocol import MAX_SCORE
from extender.waking.waiting import Waiting
from gpus.demand import Demand
from gpus.model import NodeName

#: How many different asks are remembered; pods of one workload ask alike. Each keeps its verdict
#: on every node, which is half a megabyte at 5,000 nodes.
_MEMORY = 16
#: What a pod that leaves may change at once.
_WAIT_FOR = frozenset({Reason.IN_USE.text, Reason.NOT_ENOUGH.text})
#: The most that any node but the held one gets, so that weights of other plugins cannot turn it.
_SECOND_BEST = 4


class Filter:
    """Answers filter and prioritize from the ledger; thread-safe."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        choice: Choice,
        hold_seconds: float,
        patience: Patience,
        waiting: Waiting,
    ) -> None:
        self._cluster = cluster
        self._choice = choice
        self._hold_seconds = hold_seconds
        self._patience = patience
        self._waiting = waiting
        self._turns = itertools.count()
        self._lock = threading.Lock()  # guards the next one and what is in it
        self._standings: dict[Ask, Standing] = {}

    def filter(self, pod: PodFacts, names: Collection[NodeName]) -> Decision:
        """Sort the named nodes into those to use and those that do not fit; hold the best.

        A pod that asks for no GPU fits everywhere. `pod.fault` must be empty.
        """
        self._cluster.without_hold(pod.uid)
        seen = openings, ledger = self._openings_and_ledger()
        if pod.demand is None:
            return Decision(nodes=list(names), busy={}, unfit={})
        if ledger.rival(pod) is not None:
            unfit = dict.fromkeys(names, Reason.POD_UNUSABLE.text)
            return Decision(nodes=[], busy={}, unfit=unfit)
        decision = self._decide(pod, pod.demand, names, ledger)
        if not decision.nodes and _WAIT_FOR.intersection(decision.busy.values()):
            decision, openings = self._decide_later(pod, pod.demand, names, seen, decision)
        self._waiting.answered(pod, openings, fits=bool(decision.nodes))
        if decision.nodes and self._hold_seconds > 0:
            self._cluster.hold(pod, decision.nodes[0], seconds=self._hold_seconds)
        return decision

    def _decide(
        self, pod: PodFacts, demand: Demand, names: Collection[NodeName], ledger: Ledger
    ) -> Decision:
        own, sent_to = ledger.own_of(pod.uid), ledger.sent_to(pod.uid)
        asked = {name for name in sent_to if name in names} if sent_to else names
        with self._lock:
            standing = self._standing(_ask(pod, demand))
            standing.follow(ledger.nodes)
            decision = standing.decide(asked, own=own, turn=next(self._turns))
        if not sent_to or decision.nodes:
            return decision
        elsewhere = (name for name in names if name not in sent_to)
        busy = {**dict.fromkeys(elsewhere, Reason.HOLDER_UNKNOWN.text), **decision.busy}
        return Decision(nodes=[], busy=busy, unfit=decision.unfit)

    def _decide_later(
        self,
        pod: PodFacts,
        demand: Demand,
        names: Collection[NodeName],
        seen: tuple[int, Ledger],
        decision: Decision,
    ) -> tuple[Decision, int]:
        """Decide again at each change, while patience lasts and nothing fits."""
        openings, ledger = seen
        started = time.monotonic()
        deadline = started + self._patience.left()
        while not decision.nodes and (left := deadline - time.monotonic()) > 0:
            if self._cluster.wait_for_change(ledger, seconds=left) is not ledger:
                openings, ledger = self._openings_and_ledger()
                decision = self._decide(pod, demand, names, ledger)
        self._patience.spend(time.monotonic() - started)
        return decision, openings

    def _openings_and_ledger(self) -> tuple[int, Ledger]:
        """Return the ledger and how many openings it knows of at least."""
        openings = self._cluster.openings()
        return openings, self._cluster.snapshot()

    def prioritize(self, pod: PodFacts, names: Collection[NodeName]) -> dict[NodeName, int]:
        """Score the named nodes from 0 to 10: 10 for the one that is held, 4 at most for others."""
        if pod.demand is None:
            return dict.fromkeys(names, 0)
        ledger = self._cluster.snapshot()
        nodes = ledger.seen_by(pod.uid)
        standing = Standing(_ask(pod, pod.demand), self._choice)
        verdicts = {name: standing.verdict(nodes.get(name, NodeState())) for name in names}
        ranks = {name: rank for name, rank in verdicts.items() if isinstance(rank, int)}
        if not ranks:
            return dict.fromkeys(names, 0)
        low, high = min(ranks.values()), max(ranks.values())
        scores = {
            name: _SECOND_BEST * (ranks[name] - low) // max(1, high - low) if name in ranks else 0
            for name in names
        }
        hold = ledger.holds.get(pod.uid)
        first = hold.node if hold is not None else min(ranks, key=lambda name: (-ranks[name], name))
        if first in scores:
            scores[first] = MAX_SCORE
        return scores

    def _standing(self, ask: Ask) -> Standing:
        # Taken out and put back: the last is the one used last.
        standing = self._standings.pop(ask, None) or Standing(ask, self._choice)
        if len(self._standings) >= _MEMORY:
            del self._standings[next(iter(self._standings))]
        self._standings[ask] = standing
        return standing


def _ask(pod: PodFacts, demand: Demand) -> Ask:
    return ask_of(demand, listed=pod.listed)

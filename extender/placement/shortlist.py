"""Sorts all nodes that kube-scheduler names into fitting and not, and picks the best few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from extender.placement.fit import Ask, fits
from extender.placement.reasons import Reason, Rejection
from extender.placement.state import NodeState
from extender.placement.strategies import Rank, strategy
from gpus.model import NodeName

#: A rank when the node fits, else the reason that the scheduler is told.
Verdict = int | Reason
#: Verdicts on one ask, each with the state that it was made on: it holds while that is current.
Memo = dict[NodeName, tuple[NodeState, Verdict]]

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
    """The nodes to use, best first, and those that do not fit, each with the reason.

    Of the `fitting` nodes, those beyond the limit are in neither.
    """

    nodes: list[NodeName]
    busy: dict[NodeName, str]
    unfit: dict[NodeName, str]
    fitting: int


def decide(
    names: Iterable[NodeName],
    nodes: Mapping[NodeName, NodeState],
    *,
    ask: Ask,
    choice: Choice,
    memo: Memo,
    turn: int,
) -> Decision:
    """Sort nodes by whether they fit and how well.

    `memo` is filled and used again for the same ask: only nodes that changed are looked at.
    `turn` rotates nodes of equal rank, so that not every pod is sent to the same few.
    """
    ranked: defaultdict[int, list[NodeName]] = defaultdict(list)
    busy: dict[NodeName, str] = {}
    unfit: dict[NodeName, str] = {}
    rank = choice.rank_for(ask)
    for name in names:
        state = nodes.get(name, _UNSEEN)
        known = memo.get(name)
        if known is None or known[0] is not state:
            known = memo[name] = (state, judge(ask, state, rank=rank))
        verdict = known[1]
        if isinstance(verdict, int):
            ranked[verdict].append(name)
        elif verdict.permanent:
            unfit[name] = verdict.text
        else:
            busy[name] = verdict.text
    return Decision(
        nodes=_best(ranked, limit=choice.limit, turn=turn),
        busy=busy,
        unfit=unfit,
        fitting=sum(map(len, ranked.values())),
    )


def judge(ask: Ask, state: NodeState, *, rank: Rank) -> Verdict:
    """Return how well a node fits, or why it does not."""
    fit = fits(ask, state)
    return fit.main if isinstance(fit, Rejection) else rank(fit)


def _best(ranked: Mapping[int, list[NodeName]], *, limit: int, turn: int) -> list[NodeName]:
    best: dict[NodeName, None] = {}
    for rank in sorted(ranked, reverse=True):
        ties = ranked[rank]
        start = turn % len(ties)
        wanted = limit - len(best) if limit else len(ties)
        best.update(dict.fromkeys((ties[start:] + ties[:start])[:wanted]))
        if limit and len(best) >= limit:
            break
    return list(best)

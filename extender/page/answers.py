"""What kube-scheduler was last told of each pod, for people to read."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from extender.filtering import Filter
from extender.placement.facts import PodFacts
from extender.placement.shortlist import Decision
from gpus.model import NodeName, PodUid

#: Pods that are remembered; beyond that the one that was asked for longest ago is forgotten.
_MOST = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer: the node that was offered, or how many nodes were refused for which reason."""

    node: NodeName | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)


class Answers:
    """Remembers the last answer for each pod; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the next one
        self._told: dict[PodUid, Told] = {}
        self._version = 0

    @property
    def version(self) -> int:
        """Counts answers, so that who looks again sees at once whether there are new ones."""
        return self._version

    def tell(self, pod: PodFacts, decision: Decision) -> None:
        """Take an answer in."""
        node = decision.nodes[0] if decision.nodes else None
        reasons: Counter[str] = Counter()
        if node is None:
            reasons.update(decision.busy.values())
            reasons.update(decision.unfit.values())
        with self._lock:
            self._version += 1
            self._told.pop(pod.uid, None)
            self._told[pod.uid] = Told(node=node, reasons=reasons)
            if len(self._told) > _MOST:
                del self._told[next(iter(self._told))]

    def of(self, uid: PodUid) -> Told | None:
        """Return what was last told of a pod, if it was asked for."""
        return self._told.get(uid)


class TellingFilter(Filter):
    """A filter whose answers are remembered, once it was told where."""

    _answers: Answers | None = None

    def remember_in(self, answers: Answers) -> None:
        """Remember every answer from now on."""
        self._answers = answers

    def filter(self, pod: PodFacts, names: Collection[NodeName]) -> Decision:
        """Do as `Filter` does."""
        decision = super().filter(pod, names)
        if pod.demand is not None and self._answers is not None:
            self._answers.tell(pod, decision)
        return decision

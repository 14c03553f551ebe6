"""Pods that were told that nothing fits, and whether kube-scheduler has overlooked a change since.

kube-scheduler tries a rejected pod again when its watch shows a change, and our watch may show the
same change later: then the pod was asked for too early, and nobody calls for another try. No IO
here; `extender.waking.bell` calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from extender.placement.facts import PodFacts, PodKey
from extender.placement.ledger import Ledger
from gpus.model import PodUid

#: Seconds without a filter after which the scheduler's queue counts as worked off.
QUIET = 0.25
#: Seconds that our watch may be behind kube-scheduler's with a pod that was asked for.
_BEHIND = 10.0
#: Pods that are remembered; beyond that the one that was asked for longest ago is forgotten.
_MOST = 20_000

_Key = tuple[PodKey, PodUid]


@dataclass(frozen=True, slots=True)
class _Rejection:
    at: float
    #: How many openings there had been.
    openings: int


class Waiting:
    """Remembers for each pod that was rejected how many openings there had been; thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the rest
        self._asked_at = float("-inf")
        self._rejected: dict[_Key, _Rejection] = {}

    def answered(self, pod: PodFacts, openings: int, *, fits: bool) -> None:
        """Take a filter's answer in; `openings` as counted before its ledger was taken."""
        key = (pod.key, pod.uid)
        with self._lock:
            self._asked_at = self._clock()
            self._rejected.pop(key, None)
            if not fits:
                self._rejected[key] = _Rejection(self._asked_at, openings)
                if len(self._rejected) > _MOST:
                    del self._rejected[next(iter(self._rejected))]

    def overlooked(self, ledger: Ledger, openings: int) -> bool:
        """Tell whether a pod that still waits has not been asked for since the last opening.

        Each opening is answered for once. While the scheduler is asking, it may come to it yet.
        """
        with self._lock:
            now = self._clock()
            if now - self._asked_at < QUIET:
                return False
            found = False
            for key, rejection in list(self._rejected.items()):
                if rejection.openings >= openings:
                    continue
                if ledger.waiting(*key) is not None:
                    self._rejected[key] = replace(rejection, openings=openings)
                    found = True
                elif _heard_of(ledger, *key) or now - rejection.at > _BEHIND:
                    del self._rejected[key]
            return found


def _heard_of(ledger: Ledger, key: PodKey, uid: PodUid) -> bool:
    known = ledger.pods.get(key)
    return known is not None and known.uid == uid

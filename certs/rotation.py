"""Looks at all certificates again and again, and does what is to be done. Never gives up."""

from __future__ import annotations

import threading
import time

import structlog

from certs.clock import Clock
from certs.converge import Pass, Wish, converge
from certs.issue import Outcome
from certs.metrics import Metrics
from certs.names import SCHEDULER_CLIENT
from certs.state import Why
from certs.store import CaBundle, Store
from kube.backoff import Backoff
from kube.errors import Conflict, Forbidden, Invalid, KubeError, NotFound, Unauthorized
from service.logs import ERROR, REASON, SECONDS

#: Not ready once nothing was looked at for so many times the period.
_MISSED = 6

_ADVICE: dict[type[Exception], str] = {
    NotFound: "apply the manifests first: the namespace does not exist",
    Forbidden: "grant the service account what manifests/kubeadm.yaml grants to gpudetour-certs",
    Unauthorized: "the token is not accepted; look at the service account and the kubeconfig",
    Invalid: "something refuses what is written: an immutable Secret, or an admission policy",
    OSError: "make the folder of --write-to writable",
}

log = structlog.get_logger()


class Rotation:
    """Makes a pass every `every` seconds, later after failures; several may work beside it."""

    def __init__(
        self, store: Store, wish: Wish, *, clock: Clock, metrics: Metrics, every: float
    ) -> None:
        self._store = store
        self._wish = wish
        self._clock = clock
        self._metrics = metrics
        self._every = every
        self._backoff = Backoff(first=min(0.5, every), cap=max(every, 0.5))
        self._fault: str | None = "nothing was looked at yet"
        self._told: type[Exception] | None = None
        self._bundle: CaBundle | None = None
        self._well_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set."""
        while not stop.is_set():
            stop.wait(self.once())

    def once(self) -> float:
        """Make one pass; return in how many seconds to make the next one."""
        try:
            done = converge(self._store, self._wish, now=self._clock.now())
        except Conflict:
            # Another process writes as well, and knows the same rules: look at what it did.
            self._metrics.passed("conflict")
            return self._backoff.next()
        except (KubeError, OSError) as error:
            return self._failed(error)
        self._metrics.clock_ahead(self._clock.ahead.total_seconds())
        self._metrics.passed("changed" if done.changed else "kept")
        self._metrics.seen(done.issued)
        self._fault, self._told, self._well_at = None, None, time.monotonic()
        self._backoff.reset()
        if done.bundle is CaBundle.ABSENT is not self._bundle:
            log.warning(
                "there is no webhook configuration to trust the webhook, apply the manifests"
            )
        self._bundle = done.bundle
        _tell(done)
        # What was written is looked at soon: the next step may depend on it.
        return min(self._every, 1.0) if done.changed else self._every

    def not_ready(self) -> str | None:
        """Return why the certificates are in nobody's care, or None."""
        if self._fault is not None:
            return self._fault
        silent = time.monotonic() - self._well_at
        return f"no look for {silent:.0f} s" if silent > _MISSED * self._every + 60 else None

    def _failed(self, error: Exception) -> float:
        delay = self._backoff.next()
        self._metrics.passed("failed")
        advice = next(
            (text for kind, text in _ADVICE.items() if isinstance(error, kind)),
            "certificates in use go on; this is tried again",
        )
        # Texts hold addresses of objects and the like; a fault of another kind is news.
        if type(error) is not self._told:
            self._told = type(error)
            log.warning(
                "certificates cannot be looked after",
                **{ERROR: str(error), "advice": advice, SECONDS: round(delay, 1)},
            )
        self._fault = f"{error}; {advice}"
        return delay


def _tell(done: Pass) -> None:
    for outcome in done.issued.outcomes:
        if outcome.why not in (Why.KEPT, Why.WAITING):
            _tell_issued(outcome)
    if done.bundle is CaBundle.FILLED:
        log.info("caBundle of the webhook configuration written")


def _tell_issued(outcome: Outcome) -> None:
    keys = {
        "certificate": outcome.name,
        REASON: outcome.why.value,
        "valid_until": outcome.not_after.isoformat(timespec="seconds"),
    }
    log.info("certificate issued", **keys)
    if outcome.name == SCHEDULER_CLIENT and outcome.why is not Why.MISSING:
        log.warning(
            "where kube-scheduler reads copies of the Secret gpudetour-scheduler-client, copy it "
            "again before the copy expires",
        )

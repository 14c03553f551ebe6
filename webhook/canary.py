"""Tries now and then whether pods become what they must, by dry runs: none is ever stored.

It runs on a thread of its own with connections of its own, in every replica: there is nothing to
elect, and a replica that hangs silences only itself. Nothing that it meets may end the process,
which serves admissions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from kube.client import Client
from kube.errors import ApiError, KubeError, NotFound
from service.logs import REASON
from webhook import canary_verdict
from webhook.canary_trials import TrialPod, trial_pods
from webhook.canary_verdict import CONFIGURATION, Outcome, Verdict
from webhook.mutate import Mutator

#: Seconds for one call. A pod may wait for this webhook (3 s) and for some of others.
TIMEOUT = 5.0
#: Seconds until a trial that went wrong is repeated; new endpoints and trust are known by then.
RETRY = 5.0

_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Creates trial pods in a namespace that holds nothing else, as dry runs."""

    client: Client
    mutator: Mutator
    namespace: str

    def run(self) -> Verdict:
        """Return the first verdict that is not good, or the last; never raises on purpose."""
        verdict = Verdict(outcome=Outcome.UNREACHABLE, message="nothing was tried")
        for tried in trial_pods(self.mutator):
            verdict = self._try(tried)
            if verdict.outcome is not Outcome.ADMITTED:
                break
        return verdict

    def _try(self, tried: TrialPod) -> Verdict:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        try:
            stored = self.client.create(path, tried.pod, params={"dryRun": "All"})
        except ApiError as error:
            verdict = canary_verdict.of_refusal(tried, error)
        except KubeError as error:
            return Verdict(outcome=Outcome.UNREACHABLE, message=f"no trial is possible: {error}")
        else:
            verdict = canary_verdict.of_pod(tried, stored)
        if verdict.outcome is not Outcome.NOT_CALLED:
            return verdict
        return replace(verdict, message=f"{verdict.message}: {self._cause(tried)}")

    def _cause(self, tried: TrialPod) -> str:
        try:
            configuration = self.client.get(f"{_CONFIGURATIONS}/{CONFIGURATION}")
        except NotFound:
            configuration = None
        except KubeError as error:
            return f"why is not known: {error}"
        return canary_verdict.cause(tried, configuration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between trials, and until a bad one is repeated; `jitter` returns about 1."""

    interval: float
    retry: float
    jitter: Callable[[], float]


class Canary:
    """Repeats trials and tells what they prove.

    A trial that goes wrong is repeated before it is told: while replicas are being replaced, or
    have not all heard of a change, one may go wrong by chance.
    """

    def __init__(
        self, trial: Callable[[], Verdict], *, tell: Callable[[Verdict], None], pace: Pace
    ) -> None:
        self._trial = trial
        self._tell = tell
        self._pace = pace
        self._last: Outcome | None = None

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop` is set."""
        delay = min(self._pace.retry, self._pace.interval)
        while not stop.wait(delay * self._pace.jitter()):
            try:
                self._check(stop)
            except Exception:
                log.exception("canary failed")
            delay = self._pace.interval

    def _check(self, stop: threading.Event) -> None:
        verdict = self._trial()
        if verdict.outcome is not Outcome.ADMITTED:
            if stop.wait(self._pace.retry * self._pace.jitter()):
                return
            verdict = self._trial()
        self._say(verdict)
        self._tell(verdict)

    def _say(self, verdict: Verdict) -> None:
        """Log what is new."""
        before, self._last = self._last, verdict.outcome
        if before is verdict.outcome:
            return
        if verdict.outcome is Outcome.ADMITTED:
            log.info("pods are admitted as they must be")
        elif verdict.harmful:
            log.error("pods are not admitted as they must be", **{REASON: verdict.message})
        else:
            log.warning("the canary cannot tell", **{REASON: verdict.message})

"""Where the verdicts of the canary are told: metrics, log, and the webhook's Deployment.

`kubectl describe deployment gpudetour-webhook` shows the condition and the Events, beside the pods
that an admin looks at first. The webhook configuration has no status, and may be what is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from kube import timestamps
from kube.client import Client
from kube.errors import KubeError, NotFound
from kube.events import EventRecorder
from kube.objects import ObjectMeta, ObjectReference, Struct
from service.logs import REASON
from webhook.canary_verdict import Outcome, Verdict

CONDITION = "AdmissionWorks"
FIELD_MANAGER = "gpudetour-webhook"

#: Reasons of the condition, and the status that goes with each.
_REASONS = {
    Outcome.ADMITTED: ("True", "TrialPodAdmitted"),
    Outcome.NOT_CALLED: ("False", "WebhookNotCalled"),
    Outcome.UNDONE: ("False", "UndoneByAnotherWebhook"),
    Outcome.REFUSED: ("Unknown", "TrialPodRefused"),
}

log = structlog.get_logger()


class _Condition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class _Status(Struct, frozen=True):
    conditions: list[_Condition] | None = None


class _Deployment(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    status: _Status = _Status()


class CanaryMetrics:
    """How often the canary found what, what it found last, and when all was well."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._trials = Counter(
            "gpudetour_webhook_canary_trials",
            "Trial pods by what they proved",
            ["result"],
            registry=registry,
        )
        self._last = Gauge(
            "gpudetour_webhook_canary_last_result",
            "1 for what the last trial pod proved, 0 for all else",
            ["result"],
            registry=registry,
        )
        self._success = Gauge(
            "gpudetour_webhook_canary_last_success_timestamp_seconds",
            "When a trial pod was last admitted as it must be; 0: never by this process",
            registry=registry,
        )
        for outcome in Outcome:
            self._trials.labels(outcome)
            self._last.labels(outcome)

    def count(self, outcome: Outcome, *, now: datetime) -> None:
        """Take note of one trial."""
        self._trials.labels(outcome).inc()
        for each in Outcome:
            self._last.labels(each).set(each is outcome)
        if outcome is Outcome.ADMITTED:
            self._success.set(now.timestamp())


class DeploymentReport:
    """Tells verdicts on one Deployment; every replica does so, and writes only what changes."""

    def __init__(
        self,
        client: Client,
        *,
        deployment: str,
        events: EventRecorder,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`deployment` is NAMESPACE/NAME."""
        self._client = client
        self._namespace, _, self._name = deployment.partition("/")
        self._path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{self._name}"
        self._events = events
        self._now = now

    def tell(self, verdict: Verdict) -> None:
        """Show the verdict; where the Deployment does not exist, the log must do."""
        if verdict.outcome not in _REASONS:
            return
        try:
            deployment = self._client.get(self._path, type=_Deployment)
            self._set_condition(deployment, verdict)
        except NotFound:
            return
        except KubeError as error:
            log.warning("canary condition not written", **{REASON: str(error)})
            return
        if verdict.harmful:
            self._events.event(
                self._reference(deployment),
                type="Warning",
                reason=_REASONS[verdict.outcome][1],
                message=verdict.message,
            )

    def _set_condition(self, deployment: _Deployment, verdict: Verdict) -> None:
        status, reason = _REASONS[verdict.outcome]
        conditions = deployment.status.conditions or ()
        have = next((one for one in conditions if one.type == CONDITION), _Condition())
        if (have.status, have.reason, have.message) == (status, reason, verdict.message):
            return
        moment = timestamps.time(self._now())
        entry = {
            "type": CONDITION,
            "status": status,
            "reason": reason,
            "message": verdict.message,
            "lastUpdateTime": moment,
            "lastTransitionTime": (have.last_transition_time if have.status == status else moment),
        }
        body: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "status": {"conditions": [entry]},
        }
        self._client.apply(f"{self._path}/status", body, field_manager=FIELD_MANAGER, force=True)

    def _reference(self, deployment: _Deployment) -> ObjectReference:
        return ObjectReference(
            api_version="apps/v1",
            kind="Deployment",
            namespace=self._namespace,
            name=self._name,
            uid=deployment.metadata.uid,
        )

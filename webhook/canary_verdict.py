"""What the creation of a trial pod proves: values in, a verdict out. No IO, no clock.

A pod is as it must be when it has all that the mutator gives it, and when the mutator, asked again,
finds nothing more to change. So no list of what the mutator writes is kept here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gpus.annotations import DEVICES_FROM
from kube.errors import ApiError, TooManyRequests, Unauthorized
from webhook.canary_trials import TrialPod
from webhook.containers import VISIBLE_DEVICES
from webhook.mutate import Mutated, Refused
from webhook.shape import Raw

#: Of what is shipped: without these nobody is sent to us, or refused when we are silent.
CONFIGURATION = "gpudetour"
POLICY = "gpudetour-admitted"
#: In the second message of that policy only.
_UNDONE = "undid"

#: Characters of a foreign text that is repeated.
_SHOWN = 400
#: Fields that are named; a pod without any of ours has a dozen.
_NAMED = 5


class Outcome(StrEnum):
    """What a trial proves; the values of the label `result`."""

    ADMITTED = "admitted"
    #: The API server stored or refused the pod as if we had not been asked.
    NOT_CALLED = "not_called"
    #: We were asked, but the pod does not have what we answered.
    UNDONE = "undone"
    #: Somebody else refuses the trial pod, which says nothing about others.
    REFUSED = "refused"
    #: The API server did not answer, or not to this question.
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An outcome, and a text for the admin: what is wrong and what to do."""

    outcome: Outcome
    message: str

    @property
    def harmful(self) -> bool:
        """Whether pods cannot be served, or closed off, now."""
        return self.outcome in (Outcome.NOT_CALLED, Outcome.UNDONE)


def of_pod(tried: TrialPod, stored: Raw) -> Verdict:
    """Judge the trial pod as the API server would store it."""
    again = tried.mutate(stored)
    if isinstance(again, Refused):
        return _undone("; ".join(again.faults)[:_SHOWN])
    name = ((stored.get("metadata") or {}).get("annotations") or {}).get(DEVICES_FROM)
    if name is None and not _has_entries(stored):
        return _not_called(tried, stored=True)
    asked = copy.deepcopy(tried.pod)
    if name is not None:
        # Drawn anew for every pod, but kept where it is present.
        asked["metadata"]["annotations"] = {DEVICES_FROM: name}
    wrong = [*_lost(tried.mutate(asked), stored), *_changed(again, stored)]
    if wrong:
        return _undone(", ".join(list(dict.fromkeys(wrong))[:_NAMED]))
    return Verdict(outcome=Outcome.ADMITTED, message="trial pods got all that they must")


def of_refusal(tried: TrialPod, error: ApiError) -> Verdict:
    """Judge the API server's refusal to store the trial pod."""
    text = str(error)[:_SHOWN]
    if f"'{POLICY}'" in error.message:
        return _undone(text) if _UNDONE in error.message else _not_called(tried)
    if f'failed calling webhook "{tried.webhook}"' in error.message:
        return _not_called(tried)
    if error.status >= 500 or isinstance(error, Unauthorized | TooManyRequests):
        return Verdict(outcome=Outcome.UNREACHABLE, message=f"no trial is possible: {text}")
    return Verdict(
        outcome=Outcome.REFUSED,
        message=f"what becomes of {tried.kind} is not known, because somebody else refuses the "
        f"trial pod: {text}",
    )


def cause(tried: TrialPod, configuration: Raw | None) -> str:
    """Say why the API server does not call us, from the webhook configuration or its absence."""
    entries = (configuration or {}).get("webhooks") or ()
    ours = next((entry for entry in entries if entry.get("name") == tried.webhook), None)
    if ours is None:
        return (
            f"the MutatingWebhookConfiguration {CONFIGURATION} does not exist or has no "
            f"{tried.webhook}: apply the manifests again, then let gpudetour-certs fill in caBundle"
        )
    if not (ours.get("clientConfig") or {}).get("caBundle"):
        return (
            f"{tried.webhook} in the MutatingWebhookConfiguration {CONFIGURATION} has no caBundle: "
            "gpudetour-certs fills it in, so look at its log"
        )
    return (
        f"the API server gets no answer that it takes, and says in its log, with {tried.webhook}, "
        "why: a hung or missing replica, a network policy, a certificate that caBundle does not "
        "cover"
    )


def _has_entries(pod: Raw) -> bool:
    """Tell whether any container has what the webhook gives to all."""
    return any(
        env.get("name") == VISIBLE_DEVICES
        for field in ("containers", "initContainers")
        for container in pod["spec"].get(field) or ()
        for env in container.get("env") or ()
    )


def _not_called(tried: TrialPod, *, stored: bool = False) -> Verdict:
    message = f"{tried.kind} do not reach the webhook"
    if stored and tried.guarded:
        message += (
            f", and the ValidatingAdmissionPolicy {POLICY}, or its binding, does not refuse them "
            "(apply the manifests again)"
        )
    elif stored:
        message += ", and see all GPUs of nodes whose default runtime is NVIDIA's"
    return Verdict(outcome=Outcome.NOT_CALLED, message=message)


def _undone(what: str) -> Verdict:
    return Verdict(
        outcome=Outcome.UNDONE,
        message="another admission webhook undoes what pods need; find it with kubectl get "
        f"mutatingwebhookconfigurations: {what}",
    )


def _lost(expected: Mutated | Refused, stored: Raw) -> Iterator[str]:
    """Yield the path of everything that the mutator gave and the pod does not have."""
    if isinstance(expected, Refused):
        yield from expected.faults
        return
    yield from _missing(expected.pod, stored, "")


def _changed(again: Mutated, stored: Raw) -> Iterator[str]:
    """Yield the path of everything that the mutator would change in the pod once more."""
    yield from _missing(again.pod, stored, "")
    yield from _missing(stored, again.pod, "")


def _missing(expected: Any, found: Any, path: str) -> Iterator[str]:
    """Yield the paths at which `found` lacks something; what it has beside that is no matter."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            yield from _missing(value, found.get(key), f"{path}.{key}" if path else key)
    elif isinstance(expected, list) and isinstance(found, list):
        for item in expected:
            yield from _missing_item(item, found, path)
    elif expected != found:
        yield path


def _missing_item(item: Any, found: list[Any], path: str) -> Iterator[str]:
    """The same of one item of a list; items are known by their name where they have one."""
    name = item.get("name") if isinstance(item, dict) else None
    named = [other for other in found if name and other.get("name") == name]
    if len(named) == 1:
        yield from _missing(item, named[0], f"{path}[{name}]")
    elif item not in found or named:
        yield f"{path}[{name}]" if name else path

"""What the creation of a trial pod proves: values in, a verdict out. No IO, no clock.

A pod is as it must be when it has all that the mutator gives it, and when the mutator, asked again,
finds nothing more to change. So no list of what the mutator writes is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gpus.annotations import DEVICES_FROM
from gpus.model import GPU_RESOURCE
from kube.errors import ApiError, TooManyRequests, Unauthorized
from webhook.mutate import Mutated, Mutator, Refused
from webhook.shape import Raw

#: Of manifests/base: the objects without which nobody is sent to us, or refused when we are silent.
CONFIGURATION = "gpudetour"
POLICY = "gpudetour-admitted"
_WEBHOOK = "pods.gpudetour.io"
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
        """Whether pods that ask for GPUs cannot be served now."""
        return self.outcome in (Outcome.NOT_CALLED, Outcome.UNDONE)


def trial_pod() -> Raw:
    """Return a pod that asks for a GPU in one of its containers and is never stored.

    Texts about it repeat its name, which is therefore always the same. It keeps to the "restricted"
    level of Pod Security, which a cluster may demand everywhere.
    """
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"image": "gpudetour-canary:never-started", "securityContext": security}
    asking = {"limits": {str(GPU_RESOURCE): "1"}, "requests": {str(GPU_RESOURCE): "1"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "canary"},
        "spec": {
            "automountServiceAccountToken": False,
            "initContainers": [{"name": "before", **container}],
            "containers": [
                {"name": "asks", "resources": asking, **container},
                {"name": "beside", **container},
            ],
        },
    }


def of_pod(stored: Raw, mutator: Mutator) -> Verdict:
    """Judge the trial pod as the API server would store it."""
    again = mutator.mutate(stored)
    if isinstance(again, Refused):
        return _undone("; ".join(again.faults)[:_SHOWN])
    annotations = (stored.get("metadata") or {}).get("annotations") or {}
    if DEVICES_FROM not in annotations:
        return _not_called(
            f"and the ValidatingAdmissionPolicy {POLICY}, or its binding, does not refuse such "
            "pods: apply the manifests again"
        )
    asked = trial_pod()
    # The name of its ConfigMap is drawn anew for every pod.
    asked["metadata"]["annotations"] = {DEVICES_FROM: annotations[DEVICES_FROM]}
    wrong = [*_lost(mutator.mutate(asked), stored), *_changed(again, stored)]
    if wrong:
        return _undone(", ".join(list(dict.fromkeys(wrong))[:_NAMED]))
    return Verdict(outcome=Outcome.ADMITTED, message="a trial pod got all that a GPU pod needs")


def of_refusal(error: ApiError) -> Verdict:
    """Judge the API server's refusal to store the trial pod."""
    text = error.message[:_SHOWN]
    if f"'{POLICY}'" in error.message:
        return _undone(text) if _UNDONE in error.message else _not_called()
    if f'failed calling webhook "{_WEBHOOK}"' in error.message:
        return _not_called()
    if error.status >= 500 or isinstance(error, Unauthorized | TooManyRequests):
        return Verdict(outcome=Outcome.UNREACHABLE, message=f"no trial is possible: {text}")
    return Verdict(
        outcome=Outcome.REFUSED,
        message="whether GPU pods are admitted is not known, because somebody else refuses the "
        f"trial pod: {text}",
    )


def cause(configuration: Raw | None) -> str:
    """Say why the API server does not call us, from the webhook configuration or its absence."""
    entries = (configuration or {}).get("webhooks") or ()
    ours = next((entry for entry in entries if entry.get("name") == _WEBHOOK), None)
    if ours is None:
        return (
            f"the MutatingWebhookConfiguration {CONFIGURATION} does not exist or has no "
            f"{_WEBHOOK}: apply the manifests again, then let gpudetour-certs fill in caBundle"
        )
    if not (ours.get("clientConfig") or {}).get("caBundle"):
        return (
            f"the MutatingWebhookConfiguration {CONFIGURATION} has no caBundle: gpudetour-certs "
            "fills it in, so look at its log"
        )
    return (
        f"the API server gets no answer that it takes, and says in its log, with {_WEBHOOK}, why: "
        "a hung or missing replica, a network policy, a certificate that caBundle does not cover"
    )


def _not_called(more: str = "") -> Verdict:
    return Verdict(
        outcome=Outcome.NOT_CALLED,
        message=" ".join(("pods that ask for GPUs do not reach the webhook", more)).strip(),
    )


def _undone(what: str) -> Verdict:
    return Verdict(
        outcome=Outcome.UNDONE,
        message="another admission webhook undoes what GPU pods need; find it with kubectl get "
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

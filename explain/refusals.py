"""Why a pod that does not exist was refused: by the Events of who tried to make it. Pure.

Controllers say so in an Event `FailedCreate`. Of a pod that a person tried to make there is no
trace; then the state of what refuses pods is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from explain.barriers import amount
from explain.causes import Cause
from explain.facts import Deployment, Event, Facts, Quota
from explain.findings import Finding
from explain.parts import available
from gpus.demand import is_gpu_resource

_SYSTEM = "kubectl -n gpudetour-system"
#: Texts of the policies (manifests/chart/templates), of the API server's quota and RuntimeClass
#: admission, and of its calls to webhooks, in the order in which they are looked for.
_TEXTS = (
    ("gpudetour's webhook did not answer", Cause.WEBHOOK_DOWN),
    ("but another one undid it", Cause.WEBHOOK_UNDONE),
    ("another webhook undid what gpudetour's has set", Cause.WEBHOOK_UNDONE),
    ("exceeded quota", Cause.QUOTA),
    ("failed quota", Cause.QUOTA),
)
_RUNTIME_CLASS = re.compile(r'RuntimeClass "?(?P<name>[a-z0-9.-]{1,253})"? not found')
_OUR_WEBHOOK = re.compile(r'admission webhook "[a-z]+\.gpudetour\.io" denied the request: ?')
_POLICY = re.compile(r"ValidatingAdmissionPolicy '(?P<name>gpudetour-[a-z-]+)'")


def cause_of(message: str) -> Cause:
    """Return what refused a pod, by the API server's text."""
    for text, cause in _TEXTS:
        if text in message:
            return cause
    if _RUNTIME_CLASS.search(message):
        return Cause.RUNTIME_CLASS
    if _OUR_WEBHOOK.search(message):
        return Cause.REQUEST
    return Cause.POLICY if _POLICY.search(message) else Cause.REFUSED


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield why no such pod was made, and what would refuse it now."""
    told = _about(facts)
    causes: set[Cause] = set()
    for event in sorted(told, key=lambda each: each.time, reverse=True):
        cause = cause_of(event.message)
        if cause in causes or _is_over(facts, cause, event):
            continue
        causes.add(cause)
        owner = event.involved_object
        when = f" at {event.time}" if event.time else ""
        saw = f"{owner.kind} {owner.name} was refused a pod{when}: {_cut(event.message)}"
        yield Finding(cause=cause, saw=saw, ends=_ends(facts, cause, event.message))
    if causes:
        return
    yield from _standing(facts)
    ends = (
        f"kubectl -n {facts.namespace} get pods",
        "kubectl apply --dry-run=server -f FILE tells why a pod would be refused now",
    )
    if facts.refusals is None:
        saw = f"there is no pod {facts.namespace}/{facts.name}, and Events could not be read"
    else:
        saw = f"there is no pod {facts.namespace}/{facts.name}, nor an Event of its refusal"
    yield Finding(cause=Cause.MISSING, saw=saw, ends=ends)


def _about(facts: Facts) -> list[Event]:
    """Return refusals of pods of that name, or of pods of the controller of that name."""
    return [
        event for event in facts.refusals or () if _is_about(event.involved_object.name, facts.name)
    ]


def _is_about(owner: str, name: str) -> bool:
    return bool(owner) and (
        owner == name or name.startswith(f"{owner}-") or owner.startswith(f"{name}-")
    )


def _is_over(facts: Facts, cause: Cause, event: Event) -> bool:
    """Tell whether what refused it is seen to be mended since."""
    if cause is Cause.RUNTIME_CLASS and facts.runtime_classes is not None:
        found = _RUNTIME_CLASS.search(event.message)
        return found is not None and found["name"] in facts.runtime_classes
    return False


def _ends(facts: Facts, cause: Cause, message: str) -> tuple[str, ...]:
    match cause:
        case Cause.WEBHOOK_DOWN:
            return _webhook_ends(facts)
        case Cause.WEBHOOK_UNDONE:
            return ("kubectl get mutatingwebhookconfigurations",)
        case Cause.QUOTA:
            return (
                f"kubectl -n {facts.namespace} describe resourcequota",
                "it is made when a pod of the namespace ends, or when the quota is raised",
            )
        case Cause.RUNTIME_CLASS:
            found = _RUNTIME_CLASS.search(message)
            return runtime_class_ends(found["name"] if found is not None else "nvidia")
        case Cause.REQUEST | Cause.POLICY:
            return ("change the pod as the text says, and create it again",)
        case _:
            return ("the text above is of whoever refused it",)


def _webhook_ends(facts: Facts) -> tuple[str, ...]:
    ends = [
        f"{_SYSTEM} describe deployment gpudetour-webhook",
        f"{_SYSTEM} get secret gpudetour-webhook-tls",
        "controllers make the pod by themselves when the webhook is back",
    ]
    if facts.webhook_configured is False:
        ends.insert(
            0, "apply the manifests again: the MutatingWebhookConfiguration gpudetour is gone"
        )
    deployment = (facts.deployments or {}).get("gpudetour-webhook")
    if deployment is not None:
        ends.insert(0, f"it is back when replicas are available: {available(deployment)}")
        ends[0:0] = _canary(deployment)
    return tuple(ends)


def _canary(deployment: Deployment) -> list[str]:
    """Return what the webhook's own trials found, which tells certificates from networks."""
    return [
        f"its trials say: {_cut(condition.message)}"
        for condition in deployment.status.conditions or ()
        if condition.type == "AdmissionWorks" and condition.status == "False"
    ]


def runtime_class_ends(name: str) -> tuple[str, ...]:
    """Return how a missing RuntimeClass comes back, or is done without."""
    return (
        "printf 'apiVersion: node.k8s.io/v1\\nkind: RuntimeClass\\nmetadata: {name: "
        f"{name}}}\\nhandler: {name}\\n' | kubectl apply -f -",
        "or leave runtimeClassName out: gpudetour sets it where it is needed",
    )


def _standing(facts: Facts) -> Iterator[Finding]:
    """Yield what would refuse a GPU pod of the namespace now."""
    if facts.webhook_configured is False:
        saw = "the MutatingWebhookConfiguration gpudetour does not exist"
        yield Finding(cause=Cause.WEBHOOK_DOWN, saw=saw, ends=_webhook_ends(facts))
    else:
        deployment = (facts.deployments or {}).get("gpudetour-webhook")
        if deployment is not None and not deployment.status.available_replicas:
            saw = available(deployment)
            yield Finding(cause=Cause.WEBHOOK_DOWN, saw=saw, ends=_webhook_ends(facts))
    for quota in facts.quotas or ():
        if full := _full(quota):
            yield Finding(
                cause=Cause.QUOTA,
                saw=f"ResourceQuota {quota.metadata.name}: {full}",
                ends=_ends(facts, Cause.QUOTA, ""),
            )


def _full(quota: Quota) -> str:
    """Return which resource of GPUs is used up, with its figures; empty where there is none."""
    used = quota.status.used or {}
    for name, hard in sorted((quota.status.hard or {}).items()):
        if is_gpu_resource(name.removeprefix("requests.")) and amount(used.get(name, 0)) >= amount(
            hard
        ):
            return f"{used.get(name, 0)} of {hard} {name} are used"
    return ""


def _cut(message: str) -> str:
    return " ".join(message.split())[:700]

"""Whether whoever places the pod works: scheduler, extender, certificates, fence. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from explain import scheduler_words
from explain.causes import Cause
from explain.facts import Deployment, Facts
from explain.findings import Finding
from explain.leases import is_silent, seconds_since

DEFAULT_SCHEDULER = "default-scheduler"
#: Of manifests: the scheduler of our own and the Leases by which extenders lead.
OWN_SCHEDULER = "gpudetour-scheduler"
EXTENDER_LEASE = "gpudetour-extender"
#: The ServiceAccount that bears the epoch of the extender that leads.
EXTENDER_ACCOUNT = "gpudetour-extender"
FENCE_POLICIES = ("gpudetour-fence", "gpudetour-assign")

_SYSTEM = "kubectl -n gpudetour-system"
#: Seconds within which a scheduler that works has looked at a new pod.
_PATIENCE = 15.0


def scheduling_message(facts: Facts) -> str:
    """Return what the scheduler said last of why the pod waits; empty where it said nothing."""
    pod = facts.pod
    for condition in (pod.status.conditions or ()) if pod is not None else ():
        if condition.type == "PodScheduled" and condition.status == "False" and condition.message:
            return condition.message
    failed = [each for each in facts.events or () if each.reason == "FailedScheduling"]
    return max(failed, key=lambda each: each.time).message if failed else ""


def findings(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the parts that place the pod; nothing where all is well."""
    message = scheduling_message(facts)
    if resource := scheduler_words.counts_gpus(message):
        yield _not_configured(facts, resource)
    failure = scheduler_words.failure(message)
    if failure is not None:
        yield _failed(facts, failure)
    if (broken := _fence(facts)) and (failure is None or failure.cause is not Cause.FENCE):
        yield broken
    if (failure is None or failure.cause is Cause.FENCE) and (down := _extender(facts)):
        yield down
    if not message and not _was_looked_at(facts):
        yield from _unseen(facts)


def _not_configured(facts: Facts, resource: str) -> Finding:
    scheduler = _scheduler_of(facts)
    ends = [
        f"the configuration of {scheduler} needs gpudetour's extender:"
        " `gpudetour scheduler-config` prints it and says where it goes",
    ]
    if OWN_SCHEDULER in (facts.leases or {}) and scheduler != OWN_SCHEDULER:
        ends = [
            f"create the pod again: since the install {OWN_SCHEDULER} places pods that ask for GPUs"
        ]
    return Finding(
        cause=Cause.NOT_CONFIGURED,
        saw=f"{scheduler} counts {resource} itself, so it has no extender that is asked for it",
        ends=tuple(ends),
    )


def _failed(facts: Facts, failure: scheduler_words.Failure) -> Finding:
    match failure.cause:
        case Cause.CERTIFICATE:
            return _certificate(facts, failure.saw)
        case Cause.FENCE:
            found = _fence(facts)
            ends = found.ends if found is not None else _fence_ends()
            return Finding(cause=Cause.FENCE, saw=failure.saw, ends=ends)
        case _:
            return _down(facts, f"the scheduler says: {failure.saw}")


def _certificate(facts: Facts, said: str) -> Finding:
    saw = [f"the scheduler says: {said}"]
    for one in facts.certificates or ():
        if one.not_after <= facts.now:
            saw.append(f"the certificate in Secret {one.secret} expired at {one.not_after:%F %T}Z")
        elif not one.trusted:
            saw.append(f"the bundle in Secret {one.secret} does not sign the certificate beside it")
    return Finding(
        cause=Cause.CERTIFICATE,
        saw="; ".join(saw),
        ends=(
            f"{_SYSTEM} logs deployment/gpudetour-certs --tail=20",
            "copy the Secret gpudetour-scheduler-client to kube-scheduler's files again, and"
            " restart it: it reads ca.crt only when it starts",
        ),
    )


def _fence_ends() -> tuple[str, ...]:
    return (
        "apply the manifests again",
        f"{_SYSTEM} get serviceaccount {EXTENDER_ACCOUNT} -o yaml",
        f"{_SYSTEM} logs deployment/gpudetour-extender --tail=20",
    )


def _fence(facts: Facts) -> Finding | None:
    """Return what is wrong with the policies, or with where they look for the epoch."""
    fence = facts.fence
    if fence is None:
        return None
    missing = [name for name in FENCE_POLICIES if name not in fence.policies]
    if missing:
        saw = f"the ValidatingAdmissionPolicy {missing[0]}, or its binding, does not exist"
    elif fence.account not in (None, EXTENDER_ACCOUNT):
        saw = (
            f"gpudetour-fence compares with the ServiceAccount {fence.account}, where no extender"
            " writes its epoch"
        )
    else:
        return None
    return Finding(cause=Cause.FENCE, saw=saw, ends=_fence_ends())


_LEADING = (EXTENDER_LEASE, OWN_SCHEDULER)


def _leads(facts: Facts, lease: str) -> bool:
    found = (facts.leases or {}).get(lease)
    return found is not None and not is_silent(found, now=facts.now)


def _extender(facts: Facts) -> Finding | None:
    """Return that nobody leads, by the Leases; None where one does or they could not be read."""
    if facts.leases is None or any(_leads(facts, name) for name in _LEADING):
        return None
    known = [name for name in _LEADING if name in facts.leases]
    if not known:
        return _down(facts, "no extender has ever led: there is no Lease gpudetour-extender")
    lease = facts.leases[known[0]]
    since = lease.spec.renew_time or "ever"
    return _down(facts, f"nobody leads: the Lease {known[0]} was renewed last at {since}")


def _down(facts: Facts, saw: str) -> Finding:
    deployment = (facts.deployments or {}).get("gpudetour-extender")
    if deployment is not None:
        saw += f"; {available(deployment)}"
    return Finding(
        cause=Cause.EXTENDER_DOWN,
        saw=saw,
        ends=(
            "the pod is placed by itself when the extender is back",
            f"{_SYSTEM} get pods -l app.kubernetes.io/name=gpudetour-extender -o wide",
            f"{_SYSTEM} logs deployment/gpudetour-extender --tail=20",
        ),
    )


def available(deployment: Deployment) -> str:
    """Return how many replicas of a Deployment are available, in words."""
    wanted = deployment.spec.replicas if deployment.spec.replicas is not None else 1
    there = deployment.status.available_replicas or 0
    return f"Deployment {deployment.metadata.name}: {there} of {wanted} replicas available"


def _was_looked_at(facts: Facts) -> bool:
    pod = facts.pod
    conditions = (pod.status.conditions or ()) if pod is not None else ()
    if any(condition.type == "PodScheduled" for condition in conditions):
        return True
    return any(each.reason in ("Scheduled", "FailedScheduling") for each in facts.events or ())


def _unseen(facts: Facts) -> Iterator[Finding]:
    scheduler = _scheduler_of(facts)
    created = facts.pod.metadata.creation_timestamp if facts.pod is not None else None
    age = seconds_since(created, now=facts.now)
    told = f"nobody of the name {scheduler} has said anything of the pod"
    told += f" in {age:.0f} s" if age is not None else ""
    if scheduler == OWN_SCHEDULER and OWN_SCHEDULER in (facts.leases or {}):
        if not _leads(facts, OWN_SCHEDULER):
            return  # its Lease was told of already
    elif scheduler != DEFAULT_SCHEDULER:
        yield Finding(
            cause=Cause.OTHER_SCHEDULER,
            saw=f"spec.schedulerName is {scheduler}, and {told}",
            ends=(
                "create the pod again without schedulerName, or with that of a scheduler that runs",
            ),
        )
        return
    if age is None or age > _PATIENCE:
        yield Finding(
            cause=Cause.SCHEDULER_SILENT,
            saw=told,
            ends=("kubectl -n kube-system get pods,leases | grep -i scheduler",),
        )


def _scheduler_of(facts: Facts) -> str:
    name = facts.pod.spec.scheduler_name if facts.pod is not None else ""
    return name or DEFAULT_SCHEDULER

"""What is answered to one review: who decides about it, and what is logged and counted."""

from __future__ import annotations

import re

import structlog

from service.logs import POD, REASON, REQUEST
from webhook import review
from webhook.metrics import Result
from webhook.mutate import Mutated, Mutator, Refused
from webhook.wording import cut, faults_to_tell, warnings_to_tell

_POD = "v1/Pod"
#: A pod of any version, and of no other group: group, version and kind are joined by slashes.
_ANY_POD = re.compile(r"[^/]*/Pod")
#: Where a pod gets containers after it was created.
_EPHEMERAL = "ephemeralcontainers"
_OURS = (("CREATE", ""), ("UPDATE", _EPHEMERAL))

#: Characters of names that a message or the log repeats; Kubernetes allows 253.
_SHOWN = 256

log = structlog.get_logger()


def judge(mutator: Mutator, asked: review.Request, *, others: bool) -> tuple[Result, bytes]:
    """Return how the request ended and the body of the answer.

    `others`: the request is about pods that ask for no GPU, on nodes whose default runtime is
    NVIDIA's.
    """
    if (asked.operation, asked.subresource) not in _OURS or not _ANY_POD.fullmatch(asked.kind):
        # A rule that somebody got wrong must stop nothing, least of all that pods are deleted.
        about = cut(f"{asked.operation} {asked.kind} {asked.subresource}".rstrip(), _SHOWN // 2)
        text = f"gpudetour ignores {about}: check the webhook's rules"
        return Result.UNCHANGED, review.allow(asked, warnings=(text,))
    if asked.kind != _POD:
        return _refused(asked, f"{asked.kind} is not {_POD}: check the webhook's rules")
    if asked.object is None:
        return _refused(asked, "request.object is missing")
    if not asked.subresource:
        return _told(asked, (mutator.close if others else mutator.mutate)(asked.object))
    if asked.old_object is None:
        return _refused(asked, "request.oldObject is missing")
    return _told(asked, mutator.debug(asked.object, asked.old_object, any_runtime=others))


def _told(asked: review.Request, outcome: Mutated | Refused) -> tuple[Result, bytes]:
    if isinstance(outcome, Refused):
        return _refused(asked, *outcome.faults)
    body = review.allow(asked, outcome.pod, warnings=outcome.warnings)
    if outcome.pod == asked.object:
        return Result.UNCHANGED, body
    if warnings := warnings_to_tell(outcome.warnings):
        # What goes as everybody wishes is counted, and can be read in the pod: a line for each
        # took a third of the time of an answer under load.
        log.info("pod mutated", **_keys(asked), dry_run=asked.dry_run, warnings=warnings)
    return Result.MUTATED, body


def _refused(asked: review.Request, *faults: str) -> tuple[Result, bytes]:
    log.info("pod refused", **_keys(asked), **{REASON: faults_to_tell(faults)})
    return Result.REFUSED, review.deny(asked, *faults)


def _keys(asked: review.Request) -> dict[str, str]:
    found = (asked.object or {}).get("metadata")
    metadata = found if isinstance(found, dict) else {}
    name = asked.name or metadata.get("name") or metadata.get("generateName") or ""
    return {POD: cut(f"{asked.namespace}/{name}", 2 * _SHOWN), REQUEST: asked.uid}

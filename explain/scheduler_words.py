"""What kube-scheduler said about a pod, read back: texts in, causes out. Pure.

The texts are those of kube-scheduler 1.29 to 1.34 (pkg/scheduler/framework/types.go, FitError) and
of its client of extenders; the reasons of our extender stand among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from explain.causes import Cause
from extender.placement.reasons import Reason
from gpus.demand import is_gpu_resource

#: `0/5 nodes are available: 2 Insufficient cpu, 3 all GPUs in use. no new …, preemption: …`
_FIT_ERROR = re.compile(r"nodes are available: (?P<told>.*?)(?:\.(?=\s|$)|$)", re.DOTALL)
_PART = re.compile(r"(?:^|, )(?P<count>\d+) (?P<text>.+?)(?=, \d+ |$)", re.DOTALL)
_SHORT = re.compile(r"Insufficient (?P<resource>\S+)|Too many pods")
#: Made by Go's crypto/tls and crypto/x509 on either side.
_TLS = re.compile(r"x509:|tls: |certificate has expired|client certificate with the common name")
#: What an extender is asked by; the address stands before it in every error of the call.
_VERB = re.compile(r"(?P<url>https?://[^\s\"]+?)/(?:filter|prioritize|bind|preempt)\b")
_EXTENDER = re.compile(r"extender at URL (?P<url>\S+?),? code (?P<code>\d+)")
_NOT_SERVING = "gpudetour's extender does not serve: "
_FENCE = ("gpudetour-fence", "gpudetour-assign", "no longer the leader", "lets Bindings of epoch")

#: Reasons of our extender that stand for one cause whatever the node looks like.
OF_REASON = {
    Reason.POD_UNUSABLE: Cause.UNUSABLE,
    Reason.NO_INVENTORY: Cause.AGENT_MISSING,
    Reason.NO_GPU: Cause.NO_GPU,
    Reason.PATH_CHANGING: Cause.SETTLING,
    Reason.OTHER_KIND: Cause.KIND,
    Reason.OTHER_PRODUCT: Cause.PRODUCT,
    Reason.NEVER_CONNECTED: Cause.NOT_CONNECTED,
    Reason.NOT_CONNECTED: Cause.NOT_CONNECTED,
    Reason.TOO_FEW: Cause.TOO_FEW,
    Reason.HOLDER_UNKNOWN: Cause.HOLDER_UNKNOWN,
    Reason.UNHEALTHY: Cause.UNHEALTHY,
    Reason.IN_USE: Cause.IN_USE,
    Reason.NOT_ENOUGH: Cause.NOT_ENOUGH,
}
_OF_TEXT = {reason.text: cause for reason, cause in OF_REASON.items()}
_OF_WORDS = (
    ("untolerated taint", Cause.TAINT),
    ("node affinity/selector", Cause.SELECTOR),
    ("unschedulable", Cause.CORDONED),
)


@dataclass(frozen=True, slots=True)
class Told:
    """One reason of kube-scheduler and the number of nodes that it was told of."""

    count: int
    text: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that stopped the scheduler from judging nodes at all."""

    cause: Cause
    saw: str


def reasons(message: str) -> tuple[Told, ...]:
    """Return the reasons of a `FailedScheduling`, none where it tells of something else."""
    found = _FIT_ERROR.search(message)
    if found is None:
        return ()
    parts = _PART.finditer(found["told"].strip())
    return tuple(
        Told(min(int(part["count"][:9]), 10**9), part["text"].strip(), _cause(part["text"].strip()))
        for part in parts
    )


def short_of(message: str) -> tuple[str, ...]:
    """Return the resources that kube-scheduler itself found short, GPUs among them."""
    return tuple(dict.fromkeys(_resources(message)))


def counts_gpus(message: str) -> str:
    """Return the resource of GPUs that the scheduler counts itself, empty where it does not.

    With the extender in its configuration it ignores them (`ignoredByScheduler`), so that it never
    says so.
    """
    return next((name for name in short_of(message) if is_gpu_resource(name)), "")


def failure(message: str) -> Failure | None:
    """Return why the extender could not be asked, or its bind was not taken."""
    text = " ".join(message.split())[:600]
    if any(word in message for word in _FENCE):
        return Failure(Cause.FENCE, text)
    called = _VERB.search(message) or _EXTENDER.search(message)
    if called is not None and _TLS.search(message):
        return Failure(Cause.CERTIFICATE, text)
    if called is not None and "code 403" in message:
        return Failure(Cause.CERTIFICATE, text)
    if called is not None or _NOT_SERVING in message:
        return Failure(Cause.EXTENDER_DOWN, text)
    return None


def _resources(message: str) -> Iterator[str]:
    for told in reasons(message):
        found = _SHORT.search(told.text)
        if found is not None:
            yield found["resource"] or "pods"


def _cause(text: str) -> Cause:
    if text in _OF_TEXT:
        return _OF_TEXT[text]
    if _SHORT.search(text):
        return Cause.RESOURCES
    return next((cause for words, cause in _OF_WORDS if words in text), Cause.OTHER_REASON)

"""What the canary tries: one pod for each webhook of the configuration, and what it shall become.

They are created as dry runs only. Texts about them repeat their name, which is therefore always the
same. They keep to the "restricted" level of Pod Security, which a cluster may demand everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpus.model import GPU_RESOURCE
from webhook.mutate import Mutated, Mutator, Refused
from webhook.policy import NVIDIA
from webhook.shape import Raw

_NAME = "canary"
_CONTAINER = {
    "image": "gpudetour-canary:never-started",
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPod:
    """A pod as a user would write it."""

    #: The entry of the webhook configuration that must send it to us.
    webhook: str
    #: The pods for which it stands, for people.
    kind: str
    pod: Raw
    mutate: Callable[[Raw], Mutated | Refused]
    #: Whether the policy refuses what did not reach us.
    guarded: bool = True


def trial_pods(mutator: Mutator) -> Iterator[TrialPod]:
    """Yield a pod for every way that is open with this policy and these RuntimeClasses."""
    yield TrialPod(
        webhook="pods.gpudetour.io",
        kind="pods that ask for GPUs",
        pod=_pod(asks={str(GPU_RESOURCE): "1"}),
        mutate=mutator.mutate,
    )
    runtime = mutator.policy.runtime_class
    # The configuration's conditions know RuntimeClasses by their names alone.
    if runtime.startswith(NVIDIA) and runtime in mutator.runtime_classes():
        yield TrialPod(
            webhook="runtime.gpudetour.io",
            kind="pods with NVIDIA's runtime",
            pod=_pod(runtimeClassName=runtime),
            mutate=mutator.mutate,
        )
    if mutator.policy.close_others:
        yield TrialPod(
            webhook="others.gpudetour.io",
            kind="pods that ask for no GPU",
            pod=_pod(),
            mutate=mutator.close,
            guarded=False,
        )


def _pod(*, asks: Raw | None = None, **spec: Any) -> Raw:
    main: Raw = {"name": "main", **_CONTAINER}
    if asks is not None:
        # Both, as the API server fills them in.
        main["resources"] = {"limits": asks, "requests": asks}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME},
        "spec": {
            "automountServiceAccountToken": False,
            "initContainers": [{"name": "before", **_CONTAINER}],
            "containers": [main, {"name": "beside", **_CONTAINER}],
            **spec,
        },
    }

"""A mutator with the default policy and a fixed name for the ConfigMap."""

from __future__ import annotations

from collections.abc import Mapping

from tests.webhook.reviews import MARKED, Raw
from webhook.mutate import Mutated, Mutator
from webhook.policy import Policy

CLASSES = {"nvidia": "nvidia", "gpu-fast": "nvidia-cdi", "gvisor": "runsc"}


def mutator(
    classes: Mapping[str, str] = CLASSES,
    *,
    selector: str = "gpudetour.io/gpu",
    close_others: bool = False,
) -> Mutator:
    return Mutator(
        policy=Policy(
            runtime_class="nvidia",
            selector_key=selector,
            selector_value="true",
            toleration_key="nvidia.com/gpu",
            close_others=close_others,
        ),
        new_name=lambda: MARKED,
        runtime_classes=lambda: classes,
    )


def mutated(pod: Raw, classes: Mapping[str, str] = CLASSES) -> Mutated:
    outcome = mutator(classes).mutate(pod)
    assert isinstance(outcome, Mutated), outcome
    return outcome

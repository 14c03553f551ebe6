"""What a pod that asks for GPUs needs beside its devices: nodes, runtime, scheduler, and our names.

Nothing here says on which architecture or product it runs: GPUs are beside x86 and Arm alike.
"""

from __future__ import annotations

from collections.abc import Container

from gpus.annotations import (
    ASSIGNED,
    DEVICES_CONFIG_MAP_NAME,
    DEVICES_FROM,
    GPU_LABEL,
    GPU_LABEL_VALUE,
)
from webhook.policy import Policy
from webhook.shape import Raw

#: core/v1 DefaultSchedulerName, which the API server fills in before it asks us.
_DEFAULT_SCHEDULER = "default-scheduler"


def config_map_of(pod: Raw) -> str | None:
    """Return the name of the ConfigMap that an earlier call gave to the pod, if one did.

    A pod that brings an assignment is a copy of one that was placed. The name is that pod's, and
    two pods that live at a time cannot share it.
    """
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    present: str = annotations.get(DEVICES_FROM, "")
    given = DEVICES_CONFIG_MAP_NAME.fullmatch(present) and ASSIGNED not in annotations
    return present if given else None


def labelled(metadata: Raw, config_map: str) -> tuple[Raw, list[str]]:
    """Return the metadata with our label and the ConfigMap's name, and a warning of what went."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    warnings = []
    if labels.get(GPU_LABEL, GPU_LABEL_VALUE) != GPU_LABEL_VALUE:
        warnings.append(f"label {GPU_LABEL} was set to {GPU_LABEL_VALUE!r}: the pod asks for GPUs")
    present = annotations.get(DEVICES_FROM, config_map)
    if present != config_map and not DEVICES_CONFIG_MAP_NAME.fullmatch(present):
        warnings.append(f"annotation {DEVICES_FROM} was replaced: only gpudetour sets it")
    ours = {
        "labels": {**labels, GPU_LABEL: GPU_LABEL_VALUE},
        "annotations": {**annotations, DEVICES_FROM: config_map},
    }
    return {**metadata, **ours}, warnings


def placeable(spec: Raw, policy: Policy, runtime_classes: Container[str]) -> Raw:
    """Return a spec with which the scheduler finds the nodes that have GPUs."""
    selector = spec.get("nodeSelector") or {}
    ours: Raw = {"nodeSelector": {**selector, policy.selector_key: policy.selector_value}}
    tolerations = spec.get("tolerations") or []
    if not any(_tolerates(one, policy.toleration_key) for one in tolerations):
        # As the API server's own ExtendedResourceToleration plugin writes it.
        taint = {"key": policy.toleration_key, "operator": "Exists", "effect": "NoSchedule"}
        ours["tolerations"] = [*tolerations, taint]
    if not spec.get("runtimeClassName") and policy.runtime_class in runtime_classes:
        ours["runtimeClassName"] = policy.runtime_class
    if policy.scheduler_name and _names_no_scheduler(spec):
        ours["schedulerName"] = policy.scheduler_name
    return {**spec, **ours}


def _names_no_scheduler(spec: Raw) -> bool:
    """Tell whether the pod is free to be given a scheduler.

    Who wrote the default's name cannot be told from who wrote none, and wishes no other scheduler
    either; so nobody is overruled here, and there is nothing to warn of.
    """
    return spec.get("schedulerName") in (None, "", _DEFAULT_SCHEDULER)


def _tolerates(toleration: Raw, key: str) -> bool:
    """Tell whether every NoSchedule taint with that key is tolerated (core/v1 ToleratesTaint)."""
    if toleration.get("effect") not in (None, "", "NoSchedule"):
        return False
    return toleration.get("operator") == "Exists" and toleration.get("key") in (None, "", key)

"""The policy for pods and the webhook's conditions know the names of the contract."""

from __future__ import annotations

import re
from typing import Any

from gpus.annotations import ASSIGNED, DEVICES_FROM, GPU_LABEL, PREFIX, WISHES
from gpus.demand import is_gpu_resource
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
)
from localcluster import shipped


def only(kind: str, name: str) -> dict[str, Any]:
    (found,) = (item for item in shipped.objects(kind) if item["metadata"]["name"] == name)
    return found


def test_what_a_pod_asks_for_is_kept_as_it_was_annotation_by_annotation() -> None:
    rules = only("ValidatingAdmissionPolicy", "gpudetour-pods")["spec"]["validations"]
    (kept,) = (rule["expression"] for rule in rules if "again" in rule["message"])
    (listed,) = re.findall(r"\[(['a-z, \n-]+)\]", kept)

    assert {PREFIX + name for name in re.findall(r"'([a-z-]+)'", listed)} == set(WISHES)


def test_the_policy_guards_what_the_webhook_and_the_extender_write() -> None:
    policy = only("ValidatingAdmissionPolicy", "gpudetour-pods")["spec"]
    text = str(policy["variables"]) + str(policy["validations"])

    assert {ASSIGNED, DEVICES_FROM, GPU_LABEL} <= set(re.findall(r"gpudetour\.io/[a-z-]+", text))


def test_every_gpu_resource_brings_a_pod_to_the_webhook_from_any_container() -> None:
    (webhook,) = only("MutatingWebhookConfiguration", "gpudetour")["webhooks"]
    (condition,) = (item["expression"] for item in webhook["matchConditions"])
    names = [GPU_RESOURCE, SHARED_GPU_RESOURCE, GPU_MEMORY_RESOURCE, MIG_RESOURCE_PREFIX + "1g.5gb"]

    for part in ("object.spec.containers.exists", "object.spec.initContainers.exists"):
        start = condition.index(part)
        prefixes = re.findall(r"name\.startsWith\('([^']+)'\)", condition[start:])[:3]
        assert all(is_gpu_resource(name) and name.startswith(tuple(prefixes)) for name in names)

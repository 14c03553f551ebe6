"""The policy for pods knows the names of the contract."""

from __future__ import annotations

import re
from typing import Any

from gpus.annotations import ASSIGNED, DEVICES_FROM, GPU_LABEL, PREFIX, WISHES
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

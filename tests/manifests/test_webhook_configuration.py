"""Webhooks and policy select by the names of the contract, by the same words, and stop nobody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gpus.annotations import DEVICES_CONFIG_MAP_PREFIX, DEVICES_FROM, GPU_LABEL, PREFIX
from gpus.demand import is_gpu_resource
from gpus.model import (
    GPU_MEMORY_RESOURCE,
    GPU_RESOURCE,
    MIG_RESOURCE_PREFIX,
    SHARED_GPU_RESOURCE,
)
from localcluster import shipped
from tests.manifests.choices import closing_webhook
from webhook.containers import VISIBLE_DEVICES

Object = dict[str, Any]

NAMES = ("pods.gpudetour.io", "runtime.gpudetour.io", "others.gpudetour.io")
NAMESPACE_NAME = "kubernetes.io/metadata.name"
#: Opens the part of an expression that looks at the names of resources.
ASKS = "c.?resources.?requests.orValue({}).exists(name,"


def only(kind: str, name: str) -> Object:
    (found,) = (item for item in shipped.objects(kind) if item["metadata"]["name"] == name)
    return found


@pytest.fixture(scope="module")
def webhooks(helm: Path) -> dict[str, Object]:
    """All webhooks by name: those that are always there, and the one of a default runtime."""
    del helm
    listed = only("MutatingWebhookConfiguration", "gpudetour")["webhooks"]
    return {webhook["name"]: webhook for webhook in [*listed, closing_webhook()]}


@pytest.fixture(scope="module")
def expressions(webhooks: dict[str, Object]) -> list[str]:
    """Every CEL expression that looks at the names of resources."""
    policy = only("ValidatingAdmissionPolicy", "gpudetour-admitted")["spec"]
    found = [item["expression"] for item in policy["variables"]]
    for webhook in webhooks.values():
        found += [item["expression"] for item in webhook["matchConditions"]]
    return [expression for expression in found if ASKS in expression]


def test_all_expressions_name_the_same_resources_in_the_same_words(expressions: list[str]) -> None:
    words = {
        re.sub(r"\s+", " ", re.search(r"exists\(name,(.+?)!= '0'\)", text, re.DOTALL).group(1))  # type: ignore[union-attr]
        for text in expressions
    }

    assert len(expressions) == 4
    (asked,) = words
    exact = re.findall(r"'([a-z./]+)'[,\]]", asked)
    prefixes = re.findall(r"startsWith\('([^']+)'\)", asked)
    assert set(exact) == {GPU_RESOURCE, SHARED_GPU_RESOURCE}
    assert set(prefixes) == {MIG_RESOURCE_PREFIX, PREFIX}
    assert all(is_gpu_resource(name) for name in [*exact, MIG_RESOURCE_PREFIX + "1g.5gb"])
    assert GPU_MEMORY_RESOURCE.startswith(PREFIX)


def test_the_policy_looks_at_what_the_webhook_writes() -> None:
    text = str(only("ValidatingAdmissionPolicy", "gpudetour-admitted")["spec"])

    for name in (GPU_LABEL, DEVICES_FROM, DEVICES_CONFIG_MAP_PREFIX, VISIBLE_DEVICES):
        assert f"'{name}'" in text.replace('"', "'")


@pytest.mark.parametrize("name", NAMES)
def test_no_webhook_can_stop_a_pod_or_hold_it_for_long(
    name: str, webhooks: dict[str, Object]
) -> None:
    webhook = webhooks[name]

    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["sideEffects"] == "None"
    assert webhook["timeoutSeconds"] <= 3
    assert webhook["reinvocationPolicy"] == "IfNeeded"
    for rule in webhook["rules"]:
        assert rule["scope"] == "Namespaced"
        assert (rule["operations"], rule["resources"]) in (
            (["CREATE"], ["pods"]),
            (["UPDATE"], ["pods/ephemeralcontainers"]),
        )


def test_what_goes_to_the_webhook_is_what_the_policy_looks_at(
    webhooks: dict[str, Object],
) -> None:
    policy = only("ValidatingAdmissionPolicy", "gpudetour-admitted")["spec"]["matchConstraints"]
    pods = webhooks["pods.gpudetour.io"]

    assert policy["resourceRules"] == pods["rules"]
    assert policy["namespaceSelector"] == pods["namespaceSelector"]


@pytest.mark.parametrize("name", NAMES)
def test_the_cluster_and_our_own_namespace_never_depend_on_us(
    name: str, webhooks: dict[str, Object]
) -> None:
    ours = only("Namespace", "gpudetour-system")["metadata"]["name"]
    (excluded,) = (
        expression["values"]
        for expression in webhooks[name]["namespaceSelector"]["matchExpressions"]
        if (expression["key"], expression["operator"]) == (NAMESPACE_NAME, "NotIn")
    )

    assert {"kube-system", ours} <= set(excluded)


def test_only_pods_that_ask_for_gpus_are_served_where_gpus_are_watched(
    webhooks: dict[str, Object],
) -> None:
    watched = {"key": PREFIX + "monitoring", "operator": "NotIn", "values": ["true"]}
    excluding = {
        name
        for name, webhook in webhooks.items()
        if watched in webhook["namespaceSelector"]["matchExpressions"]
    }

    assert excluding == set(webhooks) - {"pods.gpudetour.io"}

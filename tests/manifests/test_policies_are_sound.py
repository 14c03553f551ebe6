"""The API server's own opinion of the shipped policies."""

from __future__ import annotations

import pytest

from localcluster import shipped
from tests.manifests.guarded import Guarded

pytestmark = pytest.mark.controlplane

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
NAMES = [item["metadata"]["name"] for item in shipped.objects("ValidatingAdmissionPolicy")]


@pytest.mark.parametrize("name", NAMES)
def test_its_expressions_agree_with_the_schema_of_what_they_look_at(
    guard: Guarded, name: str
) -> None:
    checked = guard.cluster.wait_for(
        f"{POLICIES}/{name}",
        lambda policy: (
            policy.get("status", {}).get("observedGeneration", 0)
            == policy["metadata"]["generation"]
        ),
    )

    assert checked["status"]["typeChecking"] == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_of_its_own_lets_nothing_pass(guard: Guarded, name: str) -> None:
    assert guard.cluster.api.get(f"{POLICIES}/{name}")["spec"]["failurePolicy"] == "Fail"


def test_every_policy_is_bound() -> None:
    bound = shipped.objects("ValidatingAdmissionPolicyBinding")

    assert {binding["spec"]["policyName"] for binding in bound} == set(NAMES)

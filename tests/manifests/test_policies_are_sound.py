"""The API server's own opinion of the shipped policies."""

from __future__ import annotations

import pytest

from localcluster import shipped
from tests.manifests.door import Object, Request
from tests.manifests.guarded import CLOSED, TEAM, Guarded, gpu_pod, plain_pod, pods

pytestmark = pytest.mark.controlplane

POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
VOID = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
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


def crowded(pod: Object, *, containers: int, mounts: int) -> Object:
    """The pod with so many containers like its first, and folders of the host in all of them."""
    volumes = [{"name": f"v{n}", "hostPath": {"path": f"/data/{n}" * 9}} for n in range(mounts)]
    mounted = [{"name": f"v{n}", "mountPath": f"/mnt/{n}" * 9} for n in range(mounts)]
    (first,) = pod["spec"]["containers"]
    others = [
        {"name": f"c{n}", "image": "x", "env": VOID, "volumeMounts": mounted}
        for n in range(containers)
    ]
    pod["spec"] |= {"volumes": volumes, "containers": [first, *others]}
    return pod


@pytest.mark.parametrize("namespace", [TEAM, CLOSED])
@pytest.mark.parametrize("pod", [plain_pod("large"), gpu_pod("large")], ids=["plain", "gpus"])
def test_large_pods_do_not_exhaust_the_budget_of_an_expression(
    guard: Guarded, pod: Object, namespace: str
) -> None:
    large = crowded({**pod, "spec": dict(pod["spec"])}, containers=250, mounts=50)

    assert guard.told("user", Request(method="POST", path=pods(namespace), body=large)) == ""

"""The canary of the real webhook process tells on a real API server what becomes of GPU pods."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3

from localcluster import shipped
from localcluster.api import ApiClient, ApiError
from localcluster.stack import NAMESPACE, WEBHOOK, Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, gpu_pod, plain_pod
from tests.cluster.strange_webhook import (
    CANARY,
    CONFIGURATIONS,
    TRIAL,
    patching,
    strange_webhook,
)

pytestmark = pytest.mark.controlplane

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
OURS = f"{CONFIGURATIONS}/gpudetour"
BINDING = (
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/gpudetour-admitted"
)
#: Seconds between trials here; a bad one is repeated after as long, and informers need time too.
INTERVAL = "0.3"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def stack(quiet_stack: Stack) -> Iterator[Stack]:
    """The webhook with an impatient canary, and its Deployment, of which no pod is made."""
    (deployment,) = (
        item for item in shipped.objects("Deployment") if item["metadata"]["name"] == WEBHOOK
    )
    deployment["spec"]["replicas"] = 0
    quiet_stack.cluster.apply([deployment])
    quiet_stack.cluster.wait_for(f"/api/v1/namespaces/{CANARY}/serviceaccounts/default", bool)
    quiet_stack.stop("webhook")
    quiet_stack.start_webhook({"--canary-interval": INTERVAL})
    yield quiet_stack
    quiet_stack.stop("webhook")
    quiet_stack.cluster.api.delete(f"{DEPLOYMENTS}/{WEBHOOK}")
    quiet_stack.start_webhook()


@pytest.fixture
def api(stack: Stack) -> ApiClient:
    return stack.cluster.api


Told = Callable[..., str]


@pytest.fixture
def told(stack: Stack) -> Told:
    """Waits until the Deployment tells a status, a reason and these words; returns the message."""

    def wait(status: str, reason: str, words: str = "") -> str:
        def says(deployment: Object) -> bool:
            found = condition_of(deployment)
            same = (found.get("status"), found.get("reason")) == (status, reason)
            return same and words in str(found.get("message"))

        path = f"{DEPLOYMENTS}/{WEBHOOK}"
        return str(
            condition_of(stack.cluster.wait_for(path, says, timeout=PATIENCE)).get("message")
        )

    return wait


@pytest.fixture(autouse=True)
def well(told: Told) -> None:
    """Everything is in order before each test."""
    told("True", "TrialPodAdmitted")


@pytest.fixture
def repaired(stack: Stack, told: Told) -> Iterator[None]:
    """What the test takes away is there again after it, also for the API server."""
    yield
    stack.cluster.apply(shipped.admission(stack.webhook_url))
    # Without a caBundle nobody is called, so this is the policy.
    until(lambda: is_refused(stack.cluster.api), timeout=PATIENCE, what="the policy in force")
    stack.issue_certificates()
    told("True", "TrialPodAdmitted")


def is_refused(api: ApiClient) -> bool:
    try:
        api.create(TRIAL, gpu_pod("trial"))
    except ApiError:
        return True
    return False


def condition_of(deployment: Object) -> Object:
    conditions = deployment.get("status", {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == "AdmissionWorks"), {})


def metric(stack: Stack, name: str) -> float:
    with urllib3.PoolManager(retries=False, timeout=5.0) as pool:
        text = pool.request("GET", f"{stack.side_url('webhook')}/metrics").data.decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def results(stack: Stack) -> dict[str, float]:
    names = ("admitted", "not_called", "undone", "refused", "unreachable")
    prefix = "gpudetour_webhook_canary_last_result"
    return {name: metric(stack, f'{prefix}{{result="{name}"}}') for name in names}


def events(api: ApiClient, reason: str) -> list[Object]:
    selector = f"involvedObject.name={WEBHOOK},reason={reason}"
    listed = api.get(f"/api/v1/namespaces/{NAMESPACE}/events", fieldSelector=selector)
    found: list[Object] = listed["items"]
    return found


def test_all_is_well(stack: Stack, api: ApiClient) -> None:
    before = metric(stack, "gpudetour_webhook_canary_last_success_timestamp_seconds")

    until(
        lambda: metric(stack, "gpudetour_webhook_canary_last_success_timestamp_seconds") > before,
        timeout=PATIENCE,
        what="another success",
    )

    assert results(stack) == dict.fromkeys(results(stack), 0) | {"admitted": 1}
    assert not api.get(f"/api/v1/namespaces/{CANARY}/pods")["items"]


def test_the_condition_stays_when_the_deployment_is_worked_on(stack: Stack, api: ApiClient) -> None:
    path = f"{DEPLOYMENTS}/{WEBHOOK}"
    changed = api.patch(path, {"spec": {"paused": True}})["metadata"]["generation"]

    def observed(deployment: Object) -> bool:
        return int(deployment["status"].get("observedGeneration", 0)) >= int(changed)

    assert condition_of(stack.cluster.wait_for(path, observed))["status"] == "True"
    # For an admin's script or a test of an install.
    stack.cluster.kubectl(
        "wait", "deployment", WEBHOOK, "-n", NAMESPACE, "--for=condition=AdmissionWorks"
    )
    api.patch(path, {"spec": {"paused": False}})


def test_an_emptied_ca_bundle_is_named_counted_and_forgiven(
    stack: Stack, api: ApiClient, told: Told
) -> None:
    count = len(api.get(OURS)["webhooks"])
    patch = [
        {"op": "remove", "path": f"/webhooks/{index}/clientConfig/caBundle"}
        for index in range(count)
    ]
    api.patch(OURS, patch, kind="json")

    assert "has no caBundle: gpudetour-certs fills it in" in told("False", "WebhookNotCalled")
    assert results(stack)["not_called"] == 1
    (event,) = until(
        lambda: [
            one
            for one in events(api, "WebhookNotCalled")
            # There may be others, of what other tests took away.
            if one["count"] >= 3 and "has no caBundle" in one["message"]
        ],
        timeout=PATIENCE,
        what="an Event that is counted",
    )
    described = stack.cluster.kubectl("describe", "deployment", WEBHOOK, "-n", NAMESPACE)
    assert re.search(r"AdmissionWorks +False +WebhookNotCalled", described)
    assert "has no caBundle" in described
    stack.issue_certificates()
    told("True", "TrialPodAdmitted")
    assert event["message"] in stack.cluster.processes.tail("webhook", 200)


@pytest.mark.usefixtures("repaired")
def test_a_webhook_configuration_that_is_gone_is_named(api: ApiClient, told: Told) -> None:
    api.delete(OURS)

    assert "does not exist" in told("False", "WebhookNotCalled")


@pytest.mark.usefixtures("repaired")
def test_a_policy_that_is_gone_too_is_named(api: ApiClient, told: Told) -> None:
    api.delete(OURS)
    api.delete(BINDING)

    told("False", "WebhookNotCalled", "does not refuse them")


UNDOING: dict[str, list[Object]] = {
    # Seen by the policy, which refuses such pods.
    "env[NVIDIA_VISIBLE_DEVICES]|undid it in: main": [
        {"op": "replace", "path": "/spec/containers/0/env", "value": []}
    ],
    r"spec\.nodeSelector": [{"op": "remove", "path": "/spec/nodeSelector"}],
    r"spec\.tolerations": [{"op": "replace", "path": "/spec/tolerations", "value": []}],
    r"spec\.runtimeClassName": [{"op": "remove", "path": "/spec/runtimeClassName"}],
}


@pytest.mark.parametrize("named", UNDOING)
def test_what_another_webhook_undoes_is_named(
    api: ApiClient, told: Told, named: str, tmp_path: Path
) -> None:
    with strange_webhook(tmp_path / "pki", patching(UNDOING[named])) as webhook:
        rule = {
            "operations": ["CREATE"],
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["pods"],
        }
        entry = {
            "name": "undoes.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "reinvocationPolicy": "IfNeeded",
            "clientConfig": webhook.client_config(),
            "rules": [rule],
            "objectSelector": {"matchLabels": {"gpudetour.io/gpu": "true"}},
        }
        api.create(CONFIGURATIONS, {"metadata": {"name": "zz-undoes"}, "webhooks": [entry]})
        try:
            message = told("False", "UndoneByAnotherWebhook")
        finally:
            api.delete(f"{CONFIGURATIONS}/zz-undoes")
        told("True", "TrialPodAdmitted")

    assert re.search(named, message)


def test_who_refuses_only_the_trial_pod_proves_nothing(api: ApiClient, told: Told) -> None:
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    api.create(f"/api/v1/namespaces/{CANARY}/resourcequotas", quota)

    try:
        # While nobody has counted what the quota limits, the API server refuses in other words.
        told("Unknown", "TrialPodRefused", "exceeded quota: none")
    finally:
        api.delete(f"/api/v1/namespaces/{CANARY}/resourcequotas/none")

    assert not events(api, "TrialPodRefused")


@pytest.mark.parametrize("pod", [plain_pod("real"), gpu_pod("real")])
def test_nobody_can_run_anything_where_trials_are_made(api: ApiClient, pod: Object) -> None:
    with pytest.raises(ApiError, match="for trials only"):
        api.create(f"/api/v1/namespaces/{CANARY}/pods", compliant(pod))


def test_the_webhook_has_no_right_to_create_pods_elsewhere(stack: Stack) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:{WEBHOOK}"
    ask = ("auth", "can-i", "create", "pods", account)

    assert stack.cluster.kubectl(*ask, "-n", CANARY).strip() == "yes"
    assert stack.cluster.kubectl(*ask, "-n", "default", check=False).strip() == "no"
    assert stack.cluster.kubectl(*ask, "-n", NAMESPACE, check=False).strip() == "no"


def compliant(pod: Object) -> Object:
    """The pod as the level "restricted" of Pod Security wants it."""
    pod["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in pod["spec"]["containers"]:
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    return pod

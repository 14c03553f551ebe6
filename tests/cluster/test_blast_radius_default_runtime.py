"""Where NVIDIA's runtime is the default one: who is closed off, who is not, and what that costs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from localcluster.api import ApiError
from localcluster.stack import WEBHOOK, Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, gpu_pod, plain_pod
from tests.cluster.strange_webhook import CONFIGURATIONS
from tests.manifests.choices import CLOSING, closing_webhook, option_of

pytestmark = pytest.mark.controlplane

OURS = f"{CONFIGURATIONS}/gpudetour"
WATCHING = "watches-all-gpus"
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
#: Handlers by name; the second has NVIDIA's under a name that does not say so.
RUNTIMES = {"sandboxed": "runc", "fast": "nvidia-cdi"}
VOID = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]


@pytest.fixture(scope="module")
def closing(quiet_stack: Stack, helm: Path) -> Iterator[Stack]:
    """The stack with what `defaultRuntime.close` changes: a webhook more, and an option."""
    del helm
    api = quiet_stack.cluster.api
    before = api.get(OURS)["webhooks"]
    added = closing_webhook()
    bundle = before[0]["clientConfig"]["caBundle"]
    path = added["clientConfig"]["service"]["path"]
    added["clientConfig"] = {"url": quiet_stack.webhook_url + path, "caBundle": bundle}
    option = option_of(CLOSING, WEBHOOK)
    quiet_stack.stop("webhook")
    quiet_stack.start_webhook({option: None, "--canary-interval": "0.3"})
    api.patch(OURS, [{"op": "add", "path": "/webhooks/-", "value": added}], kind="json")
    labels = {"gpudetour.io/monitoring": "true"}
    api.create("/api/v1/namespaces", {"metadata": {"name": WATCHING, "labels": labels}})
    account = f"/api/v1/namespaces/{WATCHING}/serviceaccounts/default"
    quiet_stack.cluster.wait_for(account, bool)
    for name, handler in RUNTIMES.items():
        api.create(CLASSES, {"metadata": {"name": name}, "handler": handler})
    wait_until_closed(quiet_stack)
    # Of a RuntimeClass that it has not heard of, the webhook thinks that it may be NVIDIA's.
    left_alone = with_runtime("sandboxed")
    until(
        lambda: env_of(try_to_create(quiet_stack, left_alone)) == [],
        timeout=60,
        what="the RuntimeClasses for the webhook",
    )
    yield quiet_stack
    api.patch(OURS, [{"op": "replace", "path": "/webhooks", "value": before}], kind="json")
    api.delete(f"/api/v1/namespaces/{WATCHING}")
    for name in RUNTIMES:
        api.delete(f"{CLASSES}/{name}")
    quiet_stack.stop("webhook")
    quiet_stack.start_webhook()


def wait_until_closed(stack: Stack) -> None:
    until(
        lambda: env_of(try_to_create(stack, plain_pod("early"))) == VOID,
        timeout=60,
        what="the first pod that is closed off",
    )


def try_to_create(stack: Stack, pod: Object, namespace: str = "default") -> Object:
    return stack.cluster.api.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)


def env_of(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"]["containers"][0].get("env", [])
    return found


def with_runtime(name: str) -> Object:
    pod = plain_pod("runs")
    pod["spec"]["runtimeClassName"] = name
    return pod


@pytest.mark.parametrize("pod", [plain_pod("plain"), with_runtime("fast"), with_runtime("nvidia")])
def test_pods_that_ask_for_nothing_see_nothing(closing: Stack, pod: Object) -> None:
    assert env_of(try_to_create(closing, pod)) == VOID


def test_a_pod_with_a_runtime_that_is_not_nvidias_is_left_alone(closing: Stack) -> None:
    assert env_of(try_to_create(closing, with_runtime("sandboxed"))) == []


def test_a_pod_that_asks_is_served(closing: Stack) -> None:
    (entry,) = env_of(try_to_create(closing, gpu_pod("gpu")))

    assert "configMapKeyRef" in entry["valueFrom"]


@pytest.mark.parametrize("namespace", ["kube-system", "gpudetour-system", WATCHING])
def test_who_must_see_all_gpus_does(closing: Stack, namespace: str) -> None:
    assert env_of(try_to_create(closing, plain_pod("plain"), namespace)) == []


def test_who_makes_pods_there_cannot_open_a_namespace(closing: Stack) -> None:
    kubectl = closing.cluster.kubectl
    kubectl(
        "create", "rolebinding", "tenant", "-n", "default", "--clusterrole=admin", "--user=tenant"
    )

    said = kubectl(
        *("label", "namespace", "default", "gpudetour.io/monitoring=true", "--as=tenant"),
        check=False,
    )
    kubectl("delete", "rolebinding", "tenant", "-n", "default")

    assert "forbidden" in said


@pytest.mark.parametrize("state", ["dead", "hung"])
def test_pods_are_stored_as_they_are_while_the_webhook_is_away(closing: Stack, state: str) -> None:
    if state == "dead":
        closing.stop("webhook")
    else:
        closing.cluster.processes.signal("webhook", signal.SIGSTOP)
    try:
        began = time.monotonic()
        stored = try_to_create(closing, plain_pod("plain"))
        took = time.monotonic() - began
        with pytest.raises(ApiError, match="gpudetour's webhook did not answer"):
            try_to_create(closing, gpu_pod("gpu"))
    finally:
        if state == "dead":
            closing.start_webhook({"--close-others": None, "--canary-interval": "0.3"})
        else:
            closing.cluster.processes.signal("webhook", signal.SIGCONT)
            wait_until_closed(closing)

    assert env_of(stored) == []
    assert took < 3


def test_the_canary_tells_when_pods_are_no_longer_closed_off(closing: Stack) -> None:
    api = closing.cluster.api
    wait_for_result(closing, "admitted")
    last = len(api.get(OURS)["webhooks"]) - 1
    pointer = f"/webhooks/{last}/clientConfig/caBundle"
    bundle = api.get(OURS)["webhooks"][last]["clientConfig"]["caBundle"]

    api.patch(OURS, [{"op": "remove", "path": pointer}], kind="json")

    wait_for_result(closing, "not_called")
    said = closing.cluster.processes.tail("webhook", 200)
    assert "see all GPUs of nodes whose default runtime is NVIDIA's" in said
    assert "others.gpudetour.io in the MutatingWebhookConfiguration gpudetour has no" in said
    api.patch(OURS, [{"op": "add", "path": pointer, "value": bundle}], kind="json")
    wait_for_result(closing, "admitted")


def wait_for_result(stack: Stack, result: str) -> None:
    """Wait until the last trial of the webhook's canary ended so."""
    line = f'gpudetour_webhook_canary_last_result{{result="{result}"}} 1.0'

    def found() -> bool:
        with urllib3.PoolManager(retries=False, timeout=5.0) as pool:
            metrics = pool.request("GET", f"{stack.side_url('webhook')}/metrics").data.decode()
        return line in metrics.splitlines()

    until(found, timeout=60, what=f"canary: {result}")

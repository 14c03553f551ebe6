"""Whatever becomes of the webhook: other pods never notice, and GPU pods are told what is wrong."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcluster.api import ApiError
from localcluster.cluster import KubectlError
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Object, gpu_pod, plain_pod

pytestmark = pytest.mark.controlplane

NO_ANSWER = r"gpudetour's webhook did not answer.*Nothing is wrong with the pod"
#: Seconds; `timeoutSeconds` of the shipped webhooks.
PATIENCE = 3.0
WATCHING = "watches-gpus"


def pods_of(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def try_to_create(stack: Stack, pod: Object, namespace: str = "default") -> Object:
    return stack.cluster.api.create(f"{pods_of(namespace)}?dryRun=All", pod)


def with_nvidia_runtime(name: str) -> Object:
    pod = plain_pod(name)
    pod["spec"]["runtimeClassName"] = "nvidia"
    return pod


@pytest.fixture(scope="module")
def namespaces(quiet_stack: Stack) -> Iterator[None]:
    """Where GPU infrastructure runs, and where an admin runs what watches GPUs."""
    api = quiet_stack.cluster.api
    labels = {"gpu-operator": {}, WATCHING: {"gpudetour.io/monitoring": "true"}}
    for name, given in labels.items():
        api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": given}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        quiet_stack.cluster.wait_for(account, bool)
    yield
    for name in labels:
        api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def dead(quiet_stack: Stack) -> Iterator[None]:
    quiet_stack.stop("webhook")
    yield
    if not quiet_stack.cluster.processes.alive("webhook"):
        quiet_stack.start_webhook()


@pytest.fixture
def hung(quiet_stack: Stack) -> Iterator[None]:
    processes = quiet_stack.cluster.processes
    processes.signal("webhook", signal.SIGSTOP)
    yield
    processes.signal("webhook", signal.SIGCONT)
    # What was sent to it meanwhile is answered, late, to nobody, and first.
    until(lambda: is_answered(quiet_stack), timeout=60, what="an answer of the webhook")


def is_answered(stack: Stack) -> bool:
    try:
        try_to_create(stack, gpu_pod("again"))
    except ApiError:
        return False
    return True


@pytest.mark.usefixtures("dead")
@pytest.mark.parametrize("pod", [gpu_pod("gpu"), with_nvidia_runtime("runtime")])
def test_with_a_dead_webhook_gpu_pods_are_refused_with_what_to_do(
    quiet_stack: Stack, pod: Object
) -> None:
    with pytest.raises(ApiError, match=NO_ANSWER) as refused:
        try_to_create(quiet_stack, pod)

    assert "kubectl -n gpudetour-system describe deployment gpudetour-webhook" in str(refused.value)


@pytest.mark.usefixtures("hung")
def test_other_pods_are_stored_while_a_gpu_pod_waits_for_a_hung_webhook(quiet_stack: Stack) -> None:
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        waiting = pool.submit(try_to_create, quiet_stack, gpu_pod("gpu"))
        stored = 0
        while not waiting.done():
            try_to_create(quiet_stack, plain_pod(f"plain-{stored}"))
            stored += not waiting.done()
        with pytest.raises(ApiError, match=NO_ANSWER):
            waiting.result()
        took = time.monotonic() - began

    # One that waits as well is stored no sooner.
    assert stored > 1
    assert PATIENCE <= took < 2 * PATIENCE


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("state", ["dead", "hung"])
@pytest.mark.parametrize("namespace", ["kube-system", "gpudetour-system", "gpu-operator"])
def test_the_cluster_and_gpu_infrastructure_can_always_start(
    quiet_stack: Stack, state: str, namespace: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(state)

    for pod in (plain_pod("plain"), gpu_pod("gpu"), with_nvidia_runtime("runtime")):
        began = time.monotonic()
        stored = try_to_create(quiet_stack, pod, namespace)

        assert time.monotonic() - began < PATIENCE
        assert "env" not in stored["spec"]["containers"][0]


@pytest.mark.usefixtures("dead")
def test_a_pod_of_a_controller_is_told_in_an_event_and_made_when_the_webhook_is_back(
    quiet_stack: Stack,
) -> None:
    api = quiet_stack.cluster.api
    template = {"metadata": {"labels": {"app": "job"}}, "spec": gpu_pod("x")["spec"]}
    template["spec"]["restartPolicy"] = "Never"
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    api.create(jobs, {"metadata": {"name": "patient"}, "spec": {"template": template}})
    selector = {"fieldSelector": "involvedObject.name=patient,reason=FailedCreate"}

    def told(events: Object) -> bool:
        return any("did not answer" in event["message"] for event in events["items"])

    query = "&".join(f"{key}={value}" for key, value in selector.items())
    quiet_stack.cluster.wait_for(f"/api/v1/namespaces/default/events?{query}", told)
    quiet_stack.start_webhook()
    pods = f"{pods_of('default')}?labelSelector=job-name=patient"
    made = quiet_stack.cluster.wait_for(pods, lambda found: bool(found["items"]), timeout=120)

    assert made["items"][0]["metadata"]["labels"]["gpudetour.io/gpu"] == "true"
    quiet_stack.cluster.kubectl("delete", "job", "patient", "--cascade=foreground")


def test_what_exists_can_be_changed_and_deleted_without_the_webhook(
    quiet_stack: Stack, request: pytest.FixtureRequest
) -> None:
    api, kubectl = quiet_stack.cluster.api, quiet_stack.cluster.kubectl
    api.create(pods_of("default"), gpu_pod("elder"))
    api.create(pods_of("default"), plain_pod("plain"))
    request.getfixturevalue("dead")

    kubectl("label", "pod", "elder", "team=x")
    # What the webhook must see, and only that, is refused.
    debug = ("--image=x", "--container=d", "--attach=false", "--profile=general")
    with pytest.raises(KubectlError, match=NO_ANSWER):
        kubectl("debug", "elder", *debug)
    kubectl("debug", "plain", *debug)
    kubectl("delete", "pod", "elder", "plain", "--grace-period=0", "--force")


def test_a_refusal_of_the_webhook_itself_is_shown(quiet_stack: Stack) -> None:
    pod = gpu_pod("tied")
    pod["spec"]["nodeName"] = "node-0"

    with pytest.raises(ApiError, match=r"admission webhook .* denied .*nodeName"):
        try_to_create(quiet_stack, pod)


def test_a_copy_of_a_pod_that_was_stored_can_be_created(quiet_stack: Stack) -> None:
    copied = try_to_create(quiet_stack, gpu_pod("original"))
    copied["metadata"] = {
        "name": "copy",
        **{key: copied["metadata"][key] for key in ("labels", "annotations")},
    }

    assert try_to_create(quiet_stack, copied)


@pytest.mark.usefixtures("namespaces")
def test_monitoring_sees_all_gpus_where_the_admin_says_so(quiet_stack: Stack) -> None:
    watcher = try_to_create(quiet_stack, with_nvidia_runtime("watcher"), WATCHING)
    served = try_to_create(quiet_stack, gpu_pod("served"), WATCHING)

    assert "env" not in watcher["spec"]["containers"][0]
    assert served["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}


def test_pods_of_any_size_are_stored_and_judged(quiet_stack: Stack) -> None:
    limits = {f"e.c/r{number}": "1" for number in range(23)}
    pod = plain_pod("large")
    pod["spec"]["containers"] = [
        {"name": f"c{number}", "image": "x", "resources": {"limits": limits}}
        for number in range(1000)
    ]

    assert try_to_create(quiet_stack, pod)

    pod["spec"]["containers"][-1]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    assert try_to_create(quiet_stack, pod)["metadata"]["labels"] == {"gpudetour.io/gpu": "true"}

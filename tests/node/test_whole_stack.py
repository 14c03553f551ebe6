"""Pods as users write them, from the real API server to the environment of a real container."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from localcluster import shipped
from localcluster.api import ApiError
from localcluster.foreignplugin import Foreign
from localcluster.waiting import until
from tests.cluster.pods import Object, gpu_pod
from tests.node.gpu_node import GpuNode, annotations_of, containers

pytestmark = pytest.mark.node

_PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def with_stack(prepared_node: GpuNode) -> Iterator[None]:
    """Webhook, extender and the scheduler's configuration, for the tests of this file."""
    stack = prepared_node.stack
    stack.install()
    yield
    # Else pods that do not pass the webhook would be refused in the files that follow.
    admission = {"apiVersion": "v1", "kind": "List", "items": shipped.admission(stack.webhook_url)}
    stack.cluster.kubectl("delete", "--filename=-", stdin=json.dumps(admission))
    stack.stop("webhook", "extender")
    stack.cluster.restart_scheduler()
    until(lambda: passes(prepared_node), timeout=30, what="a GPU pod without the webhook")


def passes(node: GpuNode) -> bool:
    """Tell whether the API server takes a GPU pod that no webhook has seen."""
    try:
        node.cluster.api.create(f"{_PODS}?dryRun=All", gpu_pod("unseen"))
    except ApiError:
        return False
    return True


@pytest.fixture
def node(with_stack: None, gpu_node: GpuNode) -> GpuNode:
    """The empty node of a cluster with gpudetour on it; its agent is not started."""
    del with_stack
    return gpu_node


def user_pod(name: str) -> Object:
    """One container with a GPU and one without; only what every user writes."""
    pod = gpu_pod(name)
    pod["spec"]["terminationGracePeriodSeconds"] = 1
    (main,) = pod["spec"]["containers"]
    main["imagePullPolicy"] = "Never"
    beside = {"name": "beside", "image": main["image"], "imagePullPolicy": "Never"}
    pod["spec"]["containers"].append(beside)
    return pod


def run(node: GpuNode, pod: Object) -> Object:
    """Create a pod and return it when all its containers run."""
    node.cluster.api.create(_PODS, pod)
    return node.running(pod["metadata"]["name"])


def environment(node: GpuNode, pod: str, container: str, *options: str) -> dict[str, str]:
    """What a container printed of its environment."""

    def printed() -> str | None:
        text = node.cluster.kubectl("logs", pod, "-c", container, *options, check=False)
        return text if "PATH=" in text else None

    text = until(printed, timeout=30, what=f"environment of {pod}/{container}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def assigned(pod: Object) -> dict[str, list[str]]:
    """Container to devices, as the Binding wrote it."""
    found: dict[str, list[str]] = json.loads(annotations_of(pod)["gpudetour.io/assigned"])[
        "containers"
    ]
    return found


def by_annotation(node: GpuNode) -> None:
    node.label({"gpudetour.io/path": "annotation"})
    node.start_agent()
    node.path_is("annotation", "Annotations")


def by_our_plugin(node: GpuNode) -> None:
    node.start_agent()
    node.path_is("plugin", "OwnDevicePlugin")
    node.offers(2)


def test_by_annotation_a_container_has_its_gpu_and_the_one_beside_it_none(node: GpuNode) -> None:
    by_annotation(node)

    first, second = run(node, user_pod("first")), run(node, user_pod("second"))

    given = [assigned(pod)["main"] for pod in (first, second)]
    assert {device for devices in given for device in devices} == node.uuids
    for pod, devices in zip(("first", "second"), given, strict=True):
        assert environment(node, pod, "main")["NVIDIA_VISIBLE_DEVICES"] == ",".join(devices)
        assert environment(node, pod, "beside")["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_by_annotation_a_container_that_dies_has_the_same_gpu_again(node: GpuNode) -> None:
    by_annotation(node)
    pod = run(node, user_pod("mortal"))
    expected = ",".join(assigned(pod)["main"])
    environment(node, "mortal", "main")

    node.cluster.node.ctr("tasks", "kill", "--signal", "SIGKILL", main_container(pod))

    node.cluster.wait_for(f"{_PODS}/mortal", restarted, timeout=60)
    assert environment(node, "mortal", "main", "--previous")["NVIDIA_VISIBLE_DEVICES"] == expected
    assert environment(node, "mortal", "main")["NVIDIA_VISIBLE_DEVICES"] == expected


def main_status(pod: Object) -> Object:
    """What kubelet says of the container with the GPU."""
    statuses: list[Object] = pod["status"]["containerStatuses"]
    return next(status for status in statuses if status["name"] == "main")


def main_container(pod: Object) -> str:
    """The id by which containerd knows it."""
    identity: str = main_status(pod)["containerID"]
    return identity.removeprefix("containerd://")


def restarted(pod: Object) -> bool:
    """Tell whether the container died and runs again."""
    status = main_status(pod)
    return bool(status["restartCount"] >= 1 and status["state"].get("running"))


def test_by_our_plugin_a_container_has_the_gpu_that_kubelet_chose(node: GpuNode) -> None:
    by_our_plugin(node)

    pod = run(node, user_pod("chosen"))

    assert assigned(pod) == {}
    inside = environment(node, "chosen", "main")
    given = [value for name, value in inside.items() if name.startswith("GPUDETOUR_DEVICE_")]
    assert len(given) == 1
    assert set(given) <= node.uuids
    assert inside["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert environment(node, "chosen", "beside")["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_the_variable_of_another_plugin_arrives_untouched(node: GpuNode) -> None:
    with Foreign(node.plugins, sorted(node.uuids)):
        node.gives_out(2)
        node.start_agent()
        node.path_is("plugin", "OtherDevicePlugin")
        node.offers(2)

        run(node, user_pod("foreign"))

        assert environment(node, "foreign", "main")["NVIDIA_VISIBLE_DEVICES"] in node.uuids


@pytest.mark.parametrize("serve", [by_annotation, by_our_plugin])
def test_a_kubelet_restart_keeps_pods_running(
    node: GpuNode, serve: Callable[[GpuNode], None]
) -> None:
    serve(node)
    before = containers(run(node, user_pod("lasting")))

    node.cluster.node.restart_kubelet()

    assert containers(node.running("lasting")) == before

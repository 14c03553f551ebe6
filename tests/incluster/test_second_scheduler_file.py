"""manifests/second-scheduler.yaml and the image, on a real node: what `kubectl apply -f` makes of
them, what deletions, reboots and upgrades do to running GPU pods, and what is left after
`kubectl delete -f`.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.image.product import CHECKOUT
from localcluster.stack import AGENT, EXTENDER, NAMESPACE
from tests.incluster.files import images_of
from tests.incluster.pods import Object, assigned, container, gpu_pod, untouched
from tests.incluster.site import CONTROL_PARTS, GPUS, NODE, Site

pytestmark = [
    pytest.mark.node,
    pytest.mark.usefixtures("machine_alone"),
    # The image may have to be made first.
    pytest.mark.timeout(900),
]

_DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
#: The seeds' users labelled their GPU nodes by hand, and may keep doing so.
_BY_HAND = {"runtimeClassName": "nvidia", "nodeSelector": {"accelerator": "nvidia"}}


def manifest(checkout: Path) -> Path:
    """The file that this module is about."""
    return checkout / "manifests" / "second-scheduler.yaml"


def previous_checkout(folder: Path) -> Path:
    """The sources of the commit before this one; today's where no history is there."""
    archive = ["git", "-C", str(CHECKOUT), "archive", "--format=tar", "HEAD~1"]
    packed = subprocess.run(archive, capture_output=True, check=False)
    if packed.returncode != 0:
        return CHECKOUT
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture
def site(second_scheduler: Site) -> Iterator[Site]:
    """The cluster with everything of gpudetour serving and no pod of users."""
    second_scheduler.whole()
    yield second_scheduler
    second_scheduler.delete_pods()


def test_every_part_runs_as_a_pod_with_its_own_account(site: Site) -> None:
    accounts = {}
    for part in (*CONTROL_PARTS, AGENT):
        pods = site.pods_of(part)
        (accounts[part],) = {pod["spec"]["serviceAccountName"] for pod in pods}
        assert not any(pod["spec"].get("hostNetwork") for pod in pods)

    assert len(set(accounts.values())) == len(accounts)
    (replica, *_) = site.pods_of(EXTENDER)
    assert {each["name"] for each in replica["status"]["containerStatuses"]} == {
        "extender",
        "kube-scheduler",
    }


def test_certificates_come_up_by_themselves(site: Site) -> None:
    secrets = site.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"]

    assert {
        "gpudetour-ca",
        "gpudetour-webhook-tls",
        "gpudetour-extender-tls",
        "gpudetour-scheduler-client",
    } <= {secret["metadata"]["name"] for secret in secrets}


def test_the_agent_finds_the_driver_through_the_host(site: Site) -> None:
    # What kubelet offers may be what an agent before this one gave it.
    site.on_path("plugin")
    site.offers(GPUS)


@pytest.mark.parametrize("spec", [{}, _BY_HAND], ids=["request", "by hand"])
def test_the_pod_of_the_seeds_runs_with_its_gpu(site: Site, spec: Object) -> None:
    site.cluster.kubectl("label", "node", NODE, "accelerator=nvidia", "--overwrite")
    site.create(gpu_pod("first", **spec))
    site.create(gpu_pod("second", **spec))

    pods = {name: site.running(name) for name in ("first", "second")}

    given = {name: site.devices(name) for name in pods}
    assert [len(devices) for devices in given.values()] == [1, 1]
    assert given["first"] != given["second"]
    assert {device for devices in given.values() for device in devices} <= set(site.uuids)
    for name, pod in pods.items():
        assert pod["spec"]["schedulerName"] == "gpudetour-scheduler"
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        # What CUDA images set themselves would bring every GPU in.
        assert site.environment(name)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_a_runtime_class_alone_brings_no_gpu(site: Site) -> None:
    site.cluster.kubectl("label", "node", NODE, "accelerator=nvidia", "--overwrite")
    pod = gpu_pod("unasked", **_BY_HAND)
    pod["spec"]["containers"] = [container({})]

    site.create(pod)
    site.running("unasked")

    assert site.devices("unasked") == []
    assert site.environment("unasked")["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_the_annotation_path_gives_the_gpu_that_was_assigned(site: Site) -> None:
    site.cluster.kubectl("label", "node", NODE, "gpudetour.io/path=annotation")
    try:
        # The agent has ended its plugin; an admin of an empty node need not wait for kubelet to
        # forget it.
        site.settling()
        site.cluster.node.forget_devices()
        site.on_path("annotation")
        pod = site.place()
        name = pod["metadata"]["name"]

        (device,) = assigned(pod)["main"]
        assert device in site.uuids
        assert site.environment(name)["NVIDIA_VISIBLE_DEVICES"] == device
    finally:
        site.delete_pods()
        site.cluster.kubectl("label", "node", NODE, "gpudetour.io/path-")
    site.on_path("plugin")


@pytest.mark.parametrize("part", [*CONTROL_PARTS, AGENT])
def test_a_part_that_is_deleted_comes_back_and_no_gpu_pod_notices(site: Site, part: str) -> None:
    before = site.place()

    site.delete_part(part)

    site.whole()
    placed = site.place()
    names = [pod["metadata"]["name"] for pod in (before, placed)]
    assert site.devices(names[0]) != site.devices(names[1])
    assert untouched(before, site.pod(names[0]))


def test_after_a_reboot_all_comes_back_by_itself(site: Site) -> None:
    site.cluster.api.create(_DEPLOYMENTS, deployment("workload"))
    site.deployed("workload")
    plain = site.place()

    site.cluster.reboot_node()

    site.whole()
    (pod,) = site.deployed("workload")
    assert len(site.devices(pod["metadata"]["name"])) == 1
    assert len(site.devices(site.place()["metadata"]["name"])) == 1
    # The end of what ran is told, not hidden: kubelet admits the pod again or it has failed.
    rebooted = site.pod(plain["metadata"]["name"])
    assert rebooted["status"]["phase"] == "Failed" or not untouched(plain, rebooted)


def test_an_upgrade_and_the_way_back_leave_gpu_pods_alone(site: Site, tmp_path: Path) -> None:
    previous = previous_checkout(tmp_path)
    older = site.import_as("previous", manifest(previous), checkout=previous)
    placed = [site.place()]

    site.apply(older)
    placed.append(site.place())
    site.apply(manifest(CHECKOUT))
    placed.append(site.place())

    assert site.images() <= images_of(manifest(CHECKOUT))
    for before in placed:
        assert untouched(before, site.pod(before["metadata"]["name"]))
    given = [device for pod in placed for device in site.devices(pod["metadata"]["name"])]
    assert len(set(given)) == len(placed)
    site.prune(older, manifest(CHECKOUT))


def test_the_removal_leaves_nothing_gpu_pods_go_on_and_it_can_come_back(site: Site) -> None:
    before = site.place()

    site.remove()

    site.nothing_remains()
    assert untouched(before, site.pod(before["metadata"]["name"]))
    site.apply(manifest(CHECKOUT))
    pods = [pod["metadata"]["name"] for pod in (before, site.place())]
    assert not set(site.devices(pods[0])) & set(site.devices(pods[1]))
    assert untouched(before, site.pod(pods[0]))
    site.remove()
    site.nothing_remains()


def deployment(name: str) -> Object:
    """A Deployment of one GPU pod."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": gpu_pod(name)["spec"]},
        },
    }

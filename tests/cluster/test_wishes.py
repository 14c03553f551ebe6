"""Shares and narrowing annotations on a real kube-scheduler: five nodes with eight H100 each."""

from __future__ import annotations

import json

import pytest

from localcluster.stack import Stack
from tests.cluster.pods import (
    Create,
    Object,
    PodWhen,
    annotations_of,
    asking,
    bound,
    refused,
    refused_for,
)

pytestmark = pytest.mark.controlplane

SHARE = "gpudetour.io/gpu-memory"
GPU = "nvidia.com/gpu"


def assigned(pod: Object) -> Object:
    """What the Binding wrote."""
    found: Object = json.loads(annotations_of(pod)["gpudetour.io/assigned"])
    return found


def devices(pod: Object) -> set[str]:
    """Every GPU that the pod got."""
    return {device for ids in assigned(pod)["containers"].values() for device in ids}


def inventory(stack: Stack, node: str) -> list[Object]:
    """The GPUs of a node, as its agent published them."""
    annotations = annotations_of(stack.cluster.api.get(f"/api/v1/nodes/{node}"))
    gpus: list[Object] = json.loads(annotations["gpudetour.io/inventory"])["gpus"]
    return gpus


def test_shares_pack_one_gpu_up_to_its_memory_which_then_no_pod_gets_whole(
    create: Create, pod_when: PodWhen
) -> None:
    pods = []
    for name in ("a", "b", "c", "d"):
        create(asking(name, {SHARE: "24Gi"}))
        pods.append(pod_when(name, bound))

    first, *others, last = pods
    (shared,) = devices(first)
    assert [devices(pod) for pod in others] == [{shared}, {shared}]
    assert assigned(first)["share"] == 24 << 30
    # 80 GB are less than four times 24 GiB; the next GPU that is started is of the same node.
    assert devices(last) != {shared}
    assert last["spec"]["nodeName"] == first["spec"]["nodeName"]

    for number in range(5):
        create(asking(f"whole-{number}", {GPU: 8}))
    whole = [pod_when(f"whole-{n}", lambda pod: bound(pod) or refused(pod) != "") for n in range(5)]

    placed = [pod for pod in whole if bound(pod)]
    assert len(placed) == 4
    assert not {shared} & {device for pod in placed for device in devices(pod)}
    (waiting,) = (refused(pod) for pod in whole if not bound(pod))
    assert "4 all GPUs in use" in waiting
    assert "1 not enough free GPUs or GPU memory" in waiting


def test_all_containers_of_a_pod_share_one_gpu_by_way_of_the_config_map(
    stack: Stack, namespace: str, create: Create, pod_when: PodWhen
) -> None:
    pod = asking("two", {SHARE: "10Gi"})
    second = {**pod["spec"]["containers"][0], "name": "second"}
    pod["spec"]["containers"].append(second)
    create(pod)

    found = pod_when("two", bound)

    (device,) = devices(found)
    assert assigned(found)["share"] == 20 << 30
    name = annotations_of(found)["gpudetour.io/devices-from"]
    config_map = stack.cluster.api.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
    assert config_map["data"] == {"main": device, "second": device}


def test_a_share_that_is_freed_can_be_had_again(
    stack: Stack, namespace: str, create: Create, pod_when: PodWhen
) -> None:
    gpu = inventory(stack, "node-3")[5]["uuid"]
    create(asking("first", {SHARE: "60Gi"}, uuid=gpu))
    pod_when("first", bound)
    create(asking("second", {SHARE: "60Gi"}, uuid=gpu))
    waiting = refused(pod_when("second", lambda pod: refused(pod) != ""))

    assert "4 no GPU of the asked kind" in waiting
    assert "1 not enough free GPUs or GPU memory" in waiting

    stack.cluster.kubectl("delete", "pod", "first", "-n", namespace, "--wait=false")

    assert devices(pod_when("second", bound)) == {gpu}


def test_the_gpus_that_are_named_are_the_ones_that_are_given(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    uuids = [gpu["uuid"] for gpu in inventory(stack, "node-2")]
    create(
        asking("named", {GPU: 2}, uuid=f"{uuids[6]}, {uuids[1]}, {uuids[4]}", exclude_uuid=uuids[4])
    )

    pod = pod_when("named", bound)

    assert pod["spec"]["nodeName"] == "node-2"
    assert devices(pod) == {uuids[6], uuids[1]}


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"product": "*A100*,*L4"}, "5 no GPU of the asked product"),
        ({"min_memory": "96Gi"}, "5 no GPU of the asked kind"),
        ({"min_compute": "10.0"}, "5 no GPU of the asked kind"),
        ({"uuid": "GPU-00000000-0000-4000-8000-000000000000"}, "5 no GPU of the asked kind"),
    ],
)
def test_a_wish_that_no_node_meets_is_told_as_what_it_is(
    create: Create, pod_when: PodWhen, wishes: dict[str, str], reason: str
) -> None:
    create(asking("picky", {GPU: 1}, **wishes))

    pod_when("picky", refused_for(reason))


def test_wishes_that_are_met_place_the_pod(stack: Stack, create: Create, pod_when: PodWhen) -> None:
    wishes = {"product": "nvidia-h100*", "min_memory": "79Gi", "min_compute": "9.0"}
    create(asking("joined", {GPU: 4}, topology="nvlink", **wishes))
    create(asking("near", {GPU: 4}, topology="numa", **wishes))

    joined, near = pod_when("joined", bound), pod_when("near", bound)

    assert len(devices(joined)) == 4
    gpus = inventory(stack, near["spec"]["nodeName"])
    assert len({gpu["numaNode"] for gpu in gpus if gpu["uuid"] in devices(near)}) == 1


def test_a_pod_may_ask_to_be_spread(create: Create, pod_when: PodWhen) -> None:
    create(asking("settled", {GPU: 1}))
    node = pod_when("settled", bound)["spec"]["nodeName"]
    create(asking("spread", {GPU: 1}, policy="spread"))
    create(asking("packed", {GPU: 1}, policy="binpack"))

    assert pod_when("spread", bound)["spec"]["nodeName"] != node
    assert pod_when("packed", bound)["spec"]["nodeName"] in (
        node,
        pod_when("spread", bound)["spec"]["nodeName"],
    )

"""GPUs that are shared by time-slicing, or split into MIG instances, on a real kubelet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.stack import Stack
from tests.device_nodes import make_device_node
from tests.node.gpu_node import GPU, GpuNode, annotations_of, containers, holders
from tests.node.transitions import numa_hints

pytestmark = pytest.mark.node

_MINORS = """config 1
monitor 2
gpu0/gi1/access 12
gpu0/gi1/ci0/access 13
gpu0/gi2/access 21
gpu0/gi2/ci0/access 22
gpu1/gi1/access 147
gpu1/gi1/ci0/access 148
gpu1/gi2/access 156
gpu1/gi2/ci0/access 157
"""


def _config(folder: Path, **sections: Any) -> dict[str, str]:
    """The option that names a configuration file of NVIDIA's plugin with these sections."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"version": "v1", **sections}))
    return {"--config-file": str(path)}


def _given(environment: dict[str, str]) -> set[str]:
    return {v for name, v in environment.items() if name.startswith("GPUDETOUR_DEVICE_")}


def test_time_sliced_gpus_serve_several_pods_spread_over_the_cards(
    gpu_node: GpuNode, tmp_path: Path
) -> None:
    resources = [{"name": GPU, "replicas": 2}]
    slicing = {"failRequestsGreaterThanOne": True, "resources": resources}
    gpu_node.start_agent(_config(tmp_path, sharing={"timeSlicing": slicing}))
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(4)

    gpu_node.create_pod("greedy", asks={GPU: 2})
    refused = gpu_node.cluster.wait_for(
        "/api/v1/namespaces/default/pods/greedy",
        lambda pod: pod["status"].get("phase") == "Failed",
    )
    assert "a container may ask for 1" in refused["status"]["message"]
    gpu_node.delete_pod("greedy")

    given = []
    for name in ("first", "second", "third"):
        gpu_node.create_pod(name)
        gpu_node.running(name)
        given.append(_given(gpu_node.environment(name)))
    assert given[0] | given[1] == gpu_node.uuids
    assert given[2] <= gpu_node.uuids
    gpu_node.node_when(lambda node: set(holders(node)) == gpu_node.uuids)

    before = containers(gpu_node.running("third"))
    gpu_node.cluster.node.restart_kubelet()
    gpu_node.offers(4)
    assert containers(gpu_node.running("third")) == before
    gpu_node.create_pod("fourth")
    gpu_node.running("fourth")
    assert _given(gpu_node.environment("fourth")) | given[2] == gpu_node.uuids


@pytest.fixture
def split_node(
    real_node: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GpuNode]:
    """The node with two A100, split in halves."""
    real_node.apply(shipped.cluster_objects())
    driver = tmp_path_factory.mktemp("split")
    node = GpuNode(real_node, Stack(real_node), driver, profile="a100-mig")
    for uuid in node.machine.uuids:
        node.machine.split(uuid, ["3g.20gb", "3g.20gb"])
    minors = driver / "proc/driver/nvidia-caps/mig-minors"
    minors.parent.mkdir(parents=True, exist_ok=True)
    minors.write_text(_MINORS)
    for number in (12, 13, 21, 22, 147, 148, 156, 157):
        make_device_node(node.driver_root, f"nvidia-caps/nvidia-cap{number}")
    yield node
    node.reset()


def test_instances_reach_containers_with_their_device_nodes(split_node: GpuNode) -> None:
    node = split_node
    resource = "nvidia.com/mig-3g.20gb"
    node.start_agent()
    node.path_is("plugin", "OwnDevicePlugin")
    node.offers(4, resource=resource)
    assert {gpu.numa_node for gpu in node.machine.gpus} == {0}
    assert numa_hints(node) == {uuid: [0] for uuid in node.machine.mig_uuids}
    uid = node.create_pod("one", asks={resource: 1})["metadata"]["uid"]
    node.running("one")
    environment = node.environment("one")
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    (device,) = _given(environment)
    assert device in node.machine.mig_uuids
    node.node_when(lambda seen: holders(seen) == {device: uid})

    names = []
    for number, folder in enumerate(("/dev", "/dev/nvidia-caps")):
        name = f"ls-{number}"
        node.create_pod(name, asks={resource: 1}, command=["/bin/ls", folder])
        names.append(set(finished(node, name).split()))
        node.delete_pod(name)
    devices, capabilities = names
    assert len(devices & {"nvidia0", "nvidia1"}) == 1
    # Of its GPU instance and of its compute instance, and not the other pod's.
    assert capabilities in [
        {f"nvidia-cap{number}" for number in pair}
        for pair in ((12, 13), (21, 22), (147, 148), (156, 157))
    ]


def finished(node: GpuNode, name: str) -> str:
    """What a container printed until it ended."""
    node.cluster.wait_for(
        f"/api/v1/namespaces/default/pods/{name}",
        lambda pod: pod["status"].get("phase") == "Succeeded",
    )
    return node.cluster.kubectl("logs", name)


def test_single_offers_instances_as_gpus_and_says_when_it_cannot(
    split_node: GpuNode, tmp_path: Path
) -> None:
    node = split_node
    single = _config(tmp_path, flags={"migStrategy": "single", "failOnInitError": False})
    node.start_agent(single)
    node.path_is("plugin", "OwnDevicePlugin")
    node.offers(4)
    node.create_pod("one")
    before = containers(node.running("one"))
    (device,) = _given(node.environment("one"))
    assert device in node.machine.mig_uuids

    # Not uniform any more: nothing that a request could mean is offered, and the pod runs on.
    free = next(uuid for uuid in node.machine.uuids if _of(node, uuid).isdisjoint({device}))
    node.machine.split(free, ["3g.20gb", "2g.10gb"])
    told = node.path_is("settling", "NoGPU")
    assert "3g.20gb" in annotations_of(told)["gpudetour.io/path-reason"]
    assert containers(node.running("one")) == before
    node.machine.split(free, ["3g.20gb", "3g.20gb"])
    node.path_is("plugin", "OwnDevicePlugin")
    node.offers(4)
    assert containers(node.running("one")) == before


def _of(node: GpuNode, uuid: str) -> set[str]:
    """The instances of one GPU."""
    inventory = yaml.safe_load(annotations_of(node.node())["gpudetour.io/inventory"])
    (gpu,) = (each for each in inventory["gpus"] if each["uuid"] == uuid)
    return {each["uuid"] for each in gpu["mig"]}

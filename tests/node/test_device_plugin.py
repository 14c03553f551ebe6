"""Our device plugin on a real kubelet and a real containerd."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from localcluster.foreignplugin import Foreign
from localcluster.waiting import until
from tests.node.gpu_node import PATIENCE, GpuNode, annotations_of, containers, holders
from tests.node.transitions import numa_hints

pytestmark = pytest.mark.node

LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def _given(environment: dict[str, str]) -> set[str]:
    """The GPUs that CDI says a container has."""
    return {v for name, v in environment.items() if name.startswith("GPUDETOUR_DEVICE_")}


def test_a_container_gets_what_the_cdi_spec_says(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)
    uid = gpu_node.create_pod("one")["metadata"]["uid"]
    gpu_node.running("one")
    environment = gpu_node.environment("one")
    # The image says "all"; the spec must win, or NVIDIA's runtime would add every GPU.
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    (device,) = _given(environment)
    assert device in gpu_node.uuids
    gpu_node.node_when(lambda node: holders(node) == {device: uid})

    gpu_node.create_pod("devices", command=["/bin/ls", "/dev"])
    index = 1 - list(gpu_node.machine.uuids).index(device)
    names = gpu_node.output("devices", until_seen="zero").split()
    assert [n for n in names if n.startswith("nvidia")] == [f"nvidia{index}", "nvidiactl"]
    gpu_node.delete_pod("devices")
    gpu_node.create_pod("libraries", command=["/bin/ls", LIBRARIES])
    assert "libnvidia-ml.so.1" in gpu_node.output("libraries", until_seen=".so.1\n").split()


def test_a_gpu_of_no_numa_node_comes_without_a_hint(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.offers(2)
    assert {gpu.numa_node for gpu in gpu_node.machine.gpus} == {-1}
    assert numa_hints(gpu_node) == {uuid: [] for uuid in gpu_node.uuids}


def test_a_kubelet_restart_keeps_pods_and_gets_the_plugin_back(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.offers(2)
    gpu_node.create_pod("old")
    before = containers(gpu_node.running("old"))
    first = _given(gpu_node.environment("old"))

    gpu_node.cluster.node.restart_kubelet()
    gpu_node.offers(2)
    gpu_node.create_pod("new")
    gpu_node.running("new")
    assert _given(gpu_node.environment("new")) == gpu_node.uuids - first
    assert containers(gpu_node.running("old")) == before
    gpu_node.path_is("plugin", "OwnDevicePlugin")


def test_an_agent_restart_keeps_pods_and_holders(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.offers(2)
    uid = gpu_node.create_pod("old")["metadata"]["uid"]
    before = containers(gpu_node.running("old"))
    (device,) = _given(gpu_node.environment("old"))
    gpu_node.stop_agent()
    gpu_node.offers(0)
    gpu_node.start_agent()
    gpu_node.offers(2)
    gpu_node.node_when(lambda node: holders(node) == {device: uid})
    assert containers(gpu_node.running("old")) == before


def test_a_lost_gpu_is_not_offered_until_it_is_back(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.offers(2)
    lost = gpu_node.machine.uuids[0]
    gpu_node.machine.lose(lost)
    node = gpu_node.offers(1)
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "2"
    gpu_node.create_pod("one")
    gpu_node.running("one")
    assert _given(gpu_node.environment("one")) == gpu_node.uuids - {lost}
    gpu_node.machine.restore(lost)
    gpu_node.offers(2)


def test_ours_takes_over_from_a_plugin_that_dies_and_gives_way_when_it_is_back(
    gpu_node: GpuNode,
) -> None:
    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)):
        gpu_node.offers(2)
        gpu_node.start_agent()
        gpu_node.path_is("plugin", "OtherDevicePlugin")
        uid = gpu_node.create_pod("old")["metadata"]["uid"]
        before = containers(gpu_node.running("old"))
        # Theirs hands over by variable, which reaches the container as it is.
        first = gpu_node.environment("old")["NVIDIA_VISIBLE_DEVICES"]
        assert first in gpu_node.uuids

    gpu_node.path_is("plugin", "OwnDevicePlugin")
    # Node status may tell of the one that died still.
    gpu_node.gives_out(2)
    gpu_node.offers(2)
    new_uid = gpu_node.create_pod("new")["metadata"]["uid"]
    gpu_node.running("new")
    (second,) = _given(gpu_node.environment("new"))
    assert {first, second} == gpu_node.uuids
    gpu_node.node_when(lambda node: holders(node) == {first: uid, second: new_uid})

    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)):
        gpu_node.path_is("plugin", "OtherDevicePlugin")
        gpu_node.delete_pod("new")
        gpu_node.create_pod("third")
        gpu_node.running("third")
        assert gpu_node.environment("third")["NVIDIA_VISIBLE_DEVICES"] == second
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.offers(2)
    assert containers(gpu_node.running("old")) == before


def test_a_plugin_that_hangs_is_replaced(gpu_node: GpuNode) -> None:
    with Foreign(gpu_node.plugins, sorted(gpu_node.uuids)) as other:
        gpu_node.offers(2)
        gpu_node.start_agent()
        gpu_node.path_is("plugin", "OtherDevicePlugin")
        with other.hanging():
            gpu_node.path_is("plugin", "OwnDevicePlugin")
            gpu_node.create_pod("one")
            gpu_node.running("one")
            assert _given(gpu_node.environment("one")) <= gpu_node.uuids
            # Kubelet takes the end of the hanging one for ours, and we register again.
            before = gpu_node.checkpoint_written()
            other.kill()
            gpu_node.listed_since(before)
        gpu_node.create_pod("two")
        gpu_node.running("two")


def test_it_registers_again_when_its_socket_or_the_whole_folder_is_gone(gpu_node: GpuNode) -> None:
    gpu_node.start_agent()
    gpu_node.offers(2)
    gpu_node.create_pod("old")
    before = containers(gpu_node.running("old"))
    ours, listed = gpu_node.plugins / "gpudetour-nvidia.com_gpu.sock", gpu_node.checkpoint_written()
    ours.unlink()
    until(ours.exists, timeout=PATIENCE, what="our socket again")
    # Until then kubelet gives out what it has by the old connection, which is about to end.
    gpu_node.listed_since(listed)
    gpu_node.create_pod("new")
    gpu_node.running("new")
    assert _given(gpu_node.environment("new")) | _given(gpu_node.environment("old")) == (
        gpu_node.uuids
    )
    assert containers(gpu_node.running("old")) == before

    # Kubelet forgets everything with the folder, so no pod may hold a GPU then.
    for name in ("old", "new"):
        gpu_node.delete_pod(name)
    gpu_node.cluster.node.stop_kubelet()
    until(lambda: wiped(gpu_node.plugins), timeout=PATIENCE, what="no plugin folder")
    gpu_node.cluster.node.start_kubelet()
    gpu_node.offers(2)
    gpu_node.path_is("plugin", "OwnDevicePlugin")
    gpu_node.create_pod("last")
    gpu_node.running("last")


def wiped(folder: Path) -> bool:
    """Remove a folder in which the agent may make its socket meanwhile; tell whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def test_without_a_cdi_folder_the_variable_is_used_and_that_is_told(gpu_node: GpuNode) -> None:
    gpu_node.start_agent({"--cdi-dir": "/proc/cdi"})
    node = gpu_node.path_is("plugin", "OwnDevicePlugin")
    assert "the CDI spec cannot be written" in annotations_of(node)["gpudetour.io/path-reason"]
    gpu_node.offers(2)
    gpu_node.create_pod("one")
    gpu_node.running("one")
    environment = gpu_node.environment("one")
    assert environment["NVIDIA_VISIBLE_DEVICES"] in gpu_node.uuids
    assert not _given(environment)

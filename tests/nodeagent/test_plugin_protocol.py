"""The device plugin as kubelet sees it, over gRPC on real sockets."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from gpus.model import DeviceId, Gpu, Health, MigInstance, NodeInventory, Source
from nodeagent.deviceplugin.v1beta1 import api_pb2
from tests.fakes.kubelet import Client, FakeKubelet
from tests.nodeagent.plugin_parts import GPU, node, offered, running, with_health


def _registered(kubelet: FakeKubelet, resource: str = GPU) -> Client:
    kubelet.until(lambda: resource in kubelet.clients and kubelet.clients[resource].lists > 0)
    return kubelet.clients[resource]


def test_it_registers_and_lists_every_gpu_with_its_numa_node(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node()))
        client = _registered(kubelet)
        assert client.request.version == "v1beta1"
        assert client.request.endpoint == "gpudetour-nvidia.com_gpu.sock"
        assert client.request.options == client.options
        assert client.options.get_preferred_allocation_available
        assert not client.options.pre_start_required
        listed = {d.ID: [n.ID for n in d.topology.nodes] for d in client.devices.values()}
        assert listed == {"GPU-0": [0], "GPU-1": [0], "GPU-2": [1], "GPU-3": [1]}
        assert kubelet.healthy(GPU) == set(listed)
    assert not (kubelet.folder / "gpudetour-nvidia.com_gpu.sock").exists()


def test_health_goes_both_ways(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        client = _registered(kubelet)
        plugins.serve(offered(with_health(node(2), 1, Health.LOST)))
        kubelet.until(lambda: kubelet.healthy(GPU) == {"GPU-0"})
        assert set(client.devices) == {"GPU-0", "GPU-1"}
        plugins.serve(offered(node(2)))
        kubelet.until(lambda: kubelet.healthy(GPU) == {"GPU-0", "GPU-1"})
        assert kubelet.clients[GPU] is client


def test_nothing_is_sent_while_nothing_changes(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(2)))
        client = _registered(kubelet)
        for _ in range(3):
            plugins.serve(offered(node(2)))
        plugins.serve(offered(node(1)))
        kubelet.until(lambda: set(client.devices) == {"GPU-0"})
        assert client.lists == 2


def test_allocation_answers_each_container(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node()))
        client = _registered(kubelet)
        answer = client.plugin.Allocate(
            api_pb2.AllocateRequest(
                container_requests=[
                    api_pb2.ContainerAllocateRequest(devices_ids=["GPU-0", "GPU-1"]),
                    api_pb2.ContainerAllocateRequest(devices_ids=["GPU-3"]),
                ]
            ),
            timeout=5,
        )
        envs = [dict(response.envs) for response in answer.container_responses]
        assert envs == [
            {"NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-1"},
            {"NVIDIA_VISIBLE_DEVICES": "GPU-3"},
        ]


def test_an_unknown_device_is_an_error_and_the_plugin_goes_on(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(1)))
        client = _registered(kubelet)
        with pytest.raises(grpc.RpcError) as caught:
            client.plugin.Allocate(_allocate("GPU-9"), timeout=5)
        assert "INVALID_ARGUMENT" in str(caught.value)
        client.plugin.Allocate(_allocate("GPU-0"), timeout=5)


def test_the_best_connected_gpus_are_preferred(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node()))
        client = _registered(kubelet)

        def preferred(available: list[int], must: list[int], size: int) -> list[str]:
            request = api_pb2.ContainerPreferredAllocationRequest(
                available_deviceIDs=[f"GPU-{i}" for i in available],
                must_include_deviceIDs=[f"GPU-{i}" for i in must],
                allocation_size=size,
            )
            answer = client.plugin.GetPreferredAllocation(
                api_pb2.PreferredAllocationRequest(container_requests=[request]), timeout=5
            )
            return list(answer.container_responses[0].deviceIDs)

        assert preferred([0, 2, 3], [], 2) == ["GPU-2", "GPU-3"]
        assert preferred([0, 1, 2, 3], [1], 2) == ["GPU-0", "GPU-1"]
        with pytest.raises(grpc.RpcError, match="cannot choose 3 of 2"):
            preferred([0, 1], [], 3)


def test_mig_instances_are_resources_of_their_own(kubelet: FakeKubelet) -> None:
    instances = tuple(
        MigInstance(uuid=DeviceId(f"MIG-{i}"), profile=profile)
        for i, profile in enumerate(["1g.5gb", "1g.5gb+me"])
    )
    split = Gpu(uuid=DeviceId("GPU-0"), index=0, mig_enabled=True, mig=instances)
    whole = Gpu(uuid=DeviceId("GPU-1"), index=1)
    inventory = NodeInventory(source=Source.NVML, gpus=(split, whole))
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(inventory))
        assert set(_registered(kubelet).devices) == {"GPU-1"}
        assert set(_registered(kubelet, "nvidia.com/mig-1g.5gb").devices) == {"MIG-0"}
        assert set(_registered(kubelet, "nvidia.com/mig-1g.5gb.me").devices) == {"MIG-1"}
        # A profile that is gone is an empty list, so that kubelet gives none of it out.
        plugins.serve(offered(NodeInventory(source=Source.NVML, gpus=(whole,))))
        client = kubelet.clients["nvidia.com/mig-1g.5gb"]
        kubelet.until(lambda: not client.devices)


def test_the_remaining_method_answers(kubelet: FakeKubelet) -> None:
    with running(kubelet.folder) as plugins:
        plugins.serve(offered(node(1)))
        plugin = _registered(kubelet).plugin
        request = api_pb2.PreStartContainerRequest(devices_ids=["GPU-0"])
        assert plugin.PreStartContainer(request, timeout=5) == api_pb2.PreStartContainerResponse()


def _allocate(device: str) -> Any:
    request = api_pb2.ContainerAllocateRequest(devices_ids=[device])
    return api_pb2.AllocateRequest(container_requests=[request])

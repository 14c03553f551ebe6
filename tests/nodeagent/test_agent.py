"""The loop, with a real plugin, kubelet's protocol and an API server that can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from gpus.model import NodeInventory
from kube.client import Client
from kube.events import EventRecorder
from kube.watch import Event, EventKind
from localcluster.foreignplugin import Foreign
from nodeagent.agent import Agent, HandoverCell, NodeView, Parts
from nodeagent.deviceplugin.cdi import CdiSpec
from nodeagent.deviceplugin.driver_files import Roots
from nodeagent.deviceplugin.plugins import PluginSet
from nodeagent.deviceplugin.preparation import Preparation, Ways
from nodeagent.deviceplugin.v1beta1 import api_pb2
from nodeagent.metrics import Metrics
from nodeagent.node import NodeMeta, OwnNode
from nodeagent.observer import Choices, Observer
from nodeagent.podresources.client import PodResources
from nodeagent.pods import NodePods
from nodeagent.publisher import Publisher
from nodeagent.reader import InventoryReader
from tests.fakes.api_server import Answer, FakeApiServer, Request, refusal
from tests.fakes.kubelet import FakeKubelet, Held
from tests.nodeagent.plugin_parts import GPU, node


class _Source:
    def read(self) -> NodeInventory:
        return node(2)

    def recall(self, published: NodeInventory) -> None:
        """Nothing is worse for having been known before."""


class Running:
    """An agent at work, and what it wrote."""

    def __init__(self, folder: Path, kubelet: FakeKubelet) -> None:
        self.folder = folder
        self.kubelet = kubelet
        #: The status of every answer, where that is not 200.
        self.broken = 0
        self.wrote = threading.Condition()
        self.writes: list[Request] = []
        self.wake = threading.Event()
        self.view = NodeView(self.wake.set)
        self.cdi = folder / "cdi"
        self.ways = Ways()
        self.dra = ""

    def answer(self, request: Request) -> Answer:
        with self.wrote:
            self.writes.append(request)
            self.wrote.notify_all()
        return refusal(self.broken) if self.broken else Answer(body={})

    def until_written(self, holds: Callable[[Request], bool]) -> Request:
        """Wait for a write that satisfies a condition."""
        with self.wrote:
            assert self.wrote.wait_for(lambda: any(map(holds, self.writes)), 15), self.writes
            return next(filter(holds, self.writes))

    def until_written_since(self, count: int, holds: Callable[[Request], bool]) -> None:
        """Wait for one after the first `count` writes."""
        with self.wrote:
            assert self.wrote.wait_for(lambda: any(map(holds, self.writes[count:])), 15)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        with ExitStack() as stack:
            server = stack.enter_context(FakeApiServer(self.answer))
            client = Client(server.connection())
            handover = HandoverCell()
            roots = Roots(driver=self.folder, dev=self.folder)
            plugins = PluginSet(
                self.kubelet.folder, handover=handover, patience=60, on_change=self.wake.set
            )
            reader = InventoryReader(_Source(), interval=3600, on_change=self.wake.set)
            events = EventRecorder(client, component="agent", instance="n1")
            parts = Parts(
                view=self.view,
                reader=reader,
                observer=Observer(
                    self.kubelet.folder,
                    PodResources(self.kubelet.root),
                    NodePods(self.wake.set),
                    choices=Choices(),
                    dra=lambda: self.dra,
                ),
                plugins=plugins,
                preparation=Preparation(CdiSpec(self.cdi, roots), roots),
                publisher=Publisher(client, "n1"),
                events=events,
                metrics=Metrics(CollectorRegistry(), node="node1", figures=lambda _: {}),
                known=reader.tried.is_set,
                ways=lambda _node: self.ways,
            )
            agent = Agent(parts, handover=handover, wake=self.wake, interval=0.5)
            targets = [reader.run, plugins.run, events.run, agent.run]
            threads = [threading.Thread(target=target, args=(stop,)) for target in targets]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                stop.set()
                for waker in (reader.wake, plugins.wake, self.wake.set):
                    waker()
                for thread in threads:
                    thread.join(15)
                assert not any(thread.is_alive() for thread in threads)

    def show(self, own_node: OwnNode) -> None:
        self.view.on_event(Event(EventKind.ADDED, own_node))


@pytest.fixture
def agent(kubelet: FakeKubelet, short_folder: Path) -> Running:
    return Running(short_folder, kubelet)


def _tells(cause: str) -> Callable[[Request], bool]:
    return lambda r: (
        r.path == "/api/v1/nodes/n1/status"
        and [c["reason"] for c in r.body.get("status", {}).get("conditions", ())] == [cause]
    )


def _publishes(path: str) -> Callable[[Request], bool]:
    return lambda r: (
        r.path == "/api/v1/nodes/n1" and r.body["metadata"]["annotations"].get(_PATH) == path
    )


_PATH = "gpudetour.io/path"
_EVENTS = "/api/v1/namespaces/default/events"
FRESH = OwnNode(metadata=NodeMeta(name="n1", uid="u1"))


def _allocate(kubelet: FakeKubelet) -> Any:
    request = api_pb2.ContainerAllocateRequest(devices_ids=["GPU-0"])
    answer = kubelet.clients[GPU].plugin.Allocate(
        api_pb2.AllocateRequest(container_requests=[request]), timeout=5
    )
    return answer.container_responses[0]


def test_it_serves_kubelet_and_says_so_in_one_step(agent: Running) -> None:
    with agent.running():
        agent.show(FRESH)
        agent.until_written(_publishes("plugin"))
        event = agent.until_written(lambda r: r.path == _EVENTS)
        assert event.body["reason"] == "GPUPathChanged"
        assert event.body["involvedObject"]["name"] == "n1"
        names = [device.name for device in _allocate(agent.kubelet).cdi_devices]
        assert names == ["gpudetour.io/gpu=GPU-0"]
    paths = [r.body["metadata"]["annotations"][_PATH] for r in agent.writes if _is_metadata(r)]
    assert set(paths) == {"plugin"}  # registering is not worth a change of path


def test_nothing_is_done_before_the_node_was_seen(agent: Running) -> None:
    with agent.running():
        agent.view.on_event(Event(EventKind.DELETED, FRESH))
        agent.show(FRESH)
        agent.until_written(_publishes("plugin"))
    assert all(r.body["metadata"].get("uid", "u1") == "u1" for r in agent.writes if _is_metadata(r))


class _AlwaysSet(threading.Event):
    """Something new has always come by the time that a round is over."""

    def clear(self) -> None:
        """Stay set."""


def test_however_much_happens_kubelet_is_not_asked_faster_than_it_answers(agent: Running) -> None:
    agent.wake = _AlwaysSet()
    agent.wake.set()
    with agent.running():
        agent.show(FRESH)
        agent.kubelet.until(lambda: agent.kubelet.asked >= 24)
    assert agent.kubelet.too_fast == 0


@pytest.mark.parametrize("status", [401, 403, 409, 410, 422, 429, 500])
def test_an_api_server_in_trouble_does_not_stop_the_plugin(agent: Running, status: int) -> None:
    agent.broken = status
    with agent.running():
        agent.show(FRESH)
        agent.kubelet.until(lambda: len(agent.kubelet.healthy(GPU)) == 2)
        agent.until_written(_publishes("plugin"))
        agent.broken = 0
        before = len(agent.writes)
        agent.kubelet.restart()
        agent.kubelet.until(lambda: len(agent.kubelet.healthy(GPU)) == 2)
        with agent.wrote:
            assert agent.wrote.wait_for(lambda: len(agent.writes) > before, 15)


def test_a_cdi_folder_that_cannot_be_written_leaves_the_variable(agent: Running) -> None:
    agent.cdi.write_text("a file where the folder should be")
    with agent.running():
        agent.show(FRESH)
        told = agent.until_written(_publishes("plugin"))
        answer = _allocate(agent.kubelet)
        assert dict(answer.envs) == {"NVIDIA_VISIBLE_DEVICES": "GPU-0"}
        assert not answer.cdi_devices
    reason = told.body["metadata"]["annotations"]["gpudetour.io/path-reason"]
    assert "the CDI spec cannot be written" in reason


def test_where_nobody_reads_the_variable_nothing_is_given_out_until_cdi_works(
    agent: Running,
) -> None:
    agent.cdi.write_text("a file where the folder should be")
    agent.ways = Ways(variable=False)
    with agent.running():
        agent.show(FRESH)
        agent.kubelet.until(lambda: GPU in agent.kubelet.clients)
        condition = agent.until_written(_tells("NoHandover")).body["status"]["conditions"][0]
        assert condition["status"] == "False"
        assert "no GPU can reach a container" in condition["message"]
        agent.kubelet.until(lambda: len(agent.kubelet.clients[GPU].devices) == 2)
        assert not agent.kubelet.healthy(GPU)
        with pytest.raises(grpc.RpcError, match="no GPU can reach a container"):
            _allocate(agent.kubelet)
        agent.cdi.unlink()
        agent.kubelet.until(lambda: len(agent.kubelet.healthy(GPU)) == 2)
        agent.until_written(_tells("OwnDevicePlugin"))
        assert _allocate(agent.kubelet).cdi_devices


def test_it_stands_aside_for_dra_and_takes_over_when_that_is_gone(agent: Running) -> None:
    agent.dra = "ResourceSlices of gpu.nvidia.com offer the GPUs of this node (DRA)"
    with agent.running():
        agent.show(FRESH)
        told = agent.until_written(_tells("DynamicResourceAllocation"))
        condition = told.body["status"]["conditions"][0]
        assert condition["status"] == "True"
        assert "ResourceSlices" in condition["message"]
        agent.until_written(_publishes("settling"))
        assert not agent.kubelet.registrations
        agent.dra = ""
        agent.wake.set()
        agent.until_written(_publishes("plugin"))
        agent.kubelet.until(lambda: len(agent.kubelet.healthy(GPU)) == 2)


def test_containers_of_ours_can_start_again_while_another_plugin_serves(agent: Running) -> None:
    held = Held(resource=GPU, device="GPU-0", namespace="ns", pod="p", uid="u")
    with Foreign(agent.kubelet.folder, ["GPU-0", "GPU-1"]), agent.running():
        # Before that it is nobody's plugin, and ours would serve.
        agent.kubelet.until(lambda: len(agent.kubelet.healthy(GPU)) == 2)
        agent.show(FRESH)
        agent.until_written(_tells("OtherDevicePlugin"))
        assert not agent.cdi.exists()  # of a node without pods we take no part in
        agent.kubelet.held = [held]
        agent.kubelet.write_checkpoint()
        agent.wake.set()
        agent.until_written(
            lambda r: _is_metadata(r) and "gpudetour.io/in-use" in r.body["metadata"]["annotations"]
        )
        devices = json.loads((agent.cdi / "gpudetour.io-gpu.json").read_text())["devices"]
        assert [device["name"] for device in devices] == ["GPU-0", "GPU-1"]


def test_a_path_is_told_once_though_the_node_is_seen_late(agent: Running) -> None:
    with agent.running():
        agent.show(FRESH)
        agent.until_written(_tells("OwnDevicePlugin"))
        # The condition that was written has not arrived, but something else has to be written.
        for number in range(3):
            noted = {"gpudetour.io/summary": f"edited {number}"}
            before = len(agent.writes)
            agent.show(OwnNode(metadata=NodeMeta(name="n1", uid="u1", annotations=noted)))
            agent.until_written_since(before, _is_metadata)
    (told,) = (r for r in agent.writes if r.path.startswith(_EVENTS))
    assert (told.body["reason"], told.body["count"]) == ("GPUPathChanged", 1)


def test_the_admins_wish_takes_the_plugin_away_after_a_pause(agent: Running) -> None:
    with agent.running():
        agent.show(FRESH)
        agent.until_written(_publishes("plugin"))
        asked = {"gpudetour.io/path": "annotation"}
        agent.show(_node_with("plugin", asked))
        agent.until_written(_publishes("draining"))
        assert agent.kubelet.healthy(GPU)
        agent.show(_node_with("draining", asked))
        agent.until_written(_publishes("settling"))
        agent.kubelet.until(lambda: not agent.kubelet.healthy(GPU))
        agent.kubelet.remembered.clear()
        agent.kubelet.write_checkpoint()
        agent.show(_node_with("settling", asked))
        agent.until_written(_publishes("annotation"))


def _node_with(path: str, labels: dict[str, str]) -> OwnNode:
    return OwnNode(metadata=NodeMeta(name="n1", uid="u1", annotations={_PATH: path}, labels=labels))


def _is_metadata(request: Request) -> bool:
    return request.path == "/api/v1/nodes/n1"

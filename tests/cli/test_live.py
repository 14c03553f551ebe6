"""What GPUs do now, from node agents that answer, hang, are away or may not be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cli.exposition import figures
from cli.live import read_live
from cli.rows import Figures
from gpus.model import Gpu, NodeInventory, Path, Source
from kube.client import Client
from nodeagent.inventory.telemetry import Figures as Told
from nodeagent.metrics import Metrics, Shown
from tests.builders import gpu_id
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, refusal

PODS = "/api/v1/namespaces/gpudetour-system/pods"


def scraped(node: str) -> bytes:
    """What a real agent's metrics look like, of one GPU that is busy and one of which NVML tells
    nothing.
    """
    registry = CollectorRegistry()
    told = Told(
        utilization=0.875,
        memory_used_bytes=30 << 30,
        memory_total_bytes=80 << 30,
        temperature_celsius=61,
        power_watts=412.5,
    )
    metrics = Metrics(registry, node=node, figures=lambda _: {gpu_id(node, 0): told})
    gpus = tuple(
        Gpu(uuid=gpu_id(node, index), index=index, product='a "strange", {name}\\')
        for index in (0, 1)
    )
    inventory = NodeInventory(source=Source.NVML, gpus=gpus)
    metrics.show(Shown(inventory=inventory, path=Path.ANNOTATION, cause=""))
    return generate_latest(registry)


BUSY = Figures(
    temperature_celsius=61.0, utilization=0.875, memory_used_bytes=30 << 30, power_watts=412.5
)


def test_what_an_agent_shows_is_understood() -> None:
    assert figures(scraped("n1").decode().splitlines()) == {gpu_id("n1", 0): BUSY}


@pytest.mark.parametrize(
    "line",
    [
        "gpudetour_gpu_power_watts 5",
        'gpudetour_gpu_power_watts{uuid="GPU-a"} soon',
        'gpudetour_gpu_power_watts{uuid="GPU-a"} e',
        'gpudetour_gpu_power_watts{node="n"} 5',
        'gpudetour_gpu_other{uuid="GPU-a"} 5',
        "# HELP gpudetour_gpu_power_watts of it",
        "<html>",
        "",
    ],
)
def test_what_cannot_be_read_is_left_out(line: str) -> None:
    assert figures([line]) == {}


def agent(node: str) -> dict[str, object]:
    ports = [{"name": "other", "containerPort": 1}, {"name": "side", "containerPort": 8081}]
    return {
        "metadata": {"name": f"agent-{node}"},
        "spec": {"nodeName": node, "containers": [{"ports": ports}]},
    }


def serving(proxied: Mapping[str, Callable[[], Reply]]) -> Callable[[Request], Reply]:
    def reply(request: Request) -> Reply:
        if request.path == PODS:
            return Answer(body={"metadata": {}, "items": [agent(node) for node in proxied]})
        for node, answer in proxied.items():
            if request.path == f"{PODS}/agent-{node}:8081/proxy/metrics":
                return answer()
        return refusal(404, "NotFound")

    return reply


def test_those_that_hang_or_are_away_keep_nobody_from_the_others() -> None:
    agents: dict[str, Callable[[], Reply]] = {
        "well": lambda: Answer(body=scraped("well")),
        "hanging": lambda: Fault.HANG,
        "refusing": lambda: refusal(503, "ServiceUnavailable"),
    }

    with FakeApiServer(serving(agents)) as server:
        live = read_live(Client(server.connection()), [*agents, "without"], patience=5.0)

    assert live.figures == {gpu_id("well", 0): BUSY}
    assert live.trouble


def test_of_a_node_without_an_agent_that_is_said() -> None:
    with FakeApiServer(serving({"well": lambda: Answer(body=scraped("well"))})) as server:
        live = read_live(Client(server.connection()), ["well", "without"], patience=30.0)

    assert live.trouble == "no running node agent on 1 of 2 nodes"
    assert live.figures


def test_who_may_not_ask_is_told_so() -> None:
    message = (
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the'
        ' namespace "gpudetour-system"'
    )
    body = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": message}

    with FakeApiServer(lambda _: Answer(status=403, body=body)) as server:
        live = read_live(Client(server.connection()), ["n"], patience=30.0)

    assert live.trouble == "you may not list pods in namespace gpudetour-system (user jane)"


def test_without_nodes_nobody_is_asked() -> None:
    with FakeApiServer(lambda _: Fault.CUT) as server:
        assert read_live(Client(server.connection()), []).figures == {}
        assert server.requests == []

"""What GPUs are doing now, asked of their node agents by way of the API server, in bounded time.

The API server's pod proxy is the way: it needs no address that only the cluster knows, and RBAC
(`pods/proxy` in our namespace) says who may. Whatever cannot be read is left out, with one reason.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import msgspec

from cli.exposition import figures
from cli.reading import SYSTEM
from cli.refusals import denied
from cli.rows import Figures
from gpus.model import DeviceId
from kube.client import Client
from kube.errors import Forbidden, KubeError
from kube.objects import ObjectMeta

_AGENTS = {
    "labelSelector": "app.kubernetes.io/name=gpudetour-node-agent",
    "fieldSelector": "status.phase=Running",
}
_PORT_NAME = "side"
_AT_ONCE = 32
#: Seconds; an agent answers within one, also where a driver hangs.
_PATIENCE = 2.0


class _Port(msgspec.Struct, rename="camel", frozen=True):
    name: str = ""
    container_port: int = 0


class _Container(msgspec.Struct, frozen=True):
    ports: list[_Port] | None = None


class _Spec(msgspec.Struct, rename="camel", frozen=True):
    node_name: str = ""
    containers: list[_Container] = []


class _Agent(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _Spec = _Spec()


@dataclass(slots=True)
class Live:
    """What was read, and why the rest was not; empty where all was."""

    figures: dict[DeviceId, Figures] = field(default_factory=dict)
    trouble: str = ""


def read_live(client: Client, nodes: Collection[str], *, patience: float = _PATIENCE) -> Live:
    """Ask the agents of these nodes, for `patience` seconds in all."""
    live = Live()
    if not nodes:
        return live
    hurried, deadline = client.with_timeout(patience), time.monotonic() + patience
    try:
        agents = hurried.list_all(
            f"/api/v1/namespaces/{SYSTEM}/pods", type=_Agent, params=_AGENTS
        ).items
    except KubeError as error:
        live.trouble = _why(error)
        return live
    asked = [agent for agent in agents if agent.spec.node_name in nodes]
    if len(asked) < len(nodes):
        live.trouble = f"no running node agent on {len(nodes) - len(asked)} of {len(nodes)} nodes"
    _ask(hurried, asked, live, deadline=deadline)
    return live


def _ask(client: Client, agents: Sequence[_Agent], live: Live, *, deadline: float) -> None:
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        calls = [pool.submit(_figures, client, agent) for agent in agents]
        done, late = wait(calls, timeout=max(0.0, deadline - time.monotonic()))
    finally:
        # Those that are late end by themselves, after their own timeout.
        pool.shutdown(wait=False, cancel_futures=True)
    if late:
        live.trouble = f"{len(late)} of {len(agents)} node agents did not answer in time"
    for call in done:
        try:
            live.figures |= call.result()
        except KubeError as error:
            live.trouble = live.trouble or _why(error)


def _figures(client: Client, agent: _Agent) -> dict[DeviceId, Figures]:
    ports = [port for container in agent.spec.containers for port in container.ports or ()]
    port = next((port.container_port for port in ports if port.name == _PORT_NAME), 8080)
    pod = f"/api/v1/namespaces/{SYSTEM}/pods/{agent.metadata.name}:{port}"
    return figures(client.text(f"{pod}/proxy/metrics").splitlines())


def _why(error: KubeError) -> str:
    return denied(error) if isinstance(error, Forbidden) else str(error)

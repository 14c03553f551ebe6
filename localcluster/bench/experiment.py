"""One size of cluster: which batches run on which site, in which order.

Every system has a site of its own. Nodes are full first and empty later, because only before the
policies are there anybody can say that a pod holds a GPU. What is seen is returned; how it is told
is in `table`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from gpus.annotations import PATH
from gpus.model import Path as GpuPath
from localcluster.bench.fleet import GPUS
from localcluster.bench.growth import measure_growth
from localcluster.bench.outcome import Growth, Load, Outcome, Rebuild, Results, State
from localcluster.bench.restart import restart_extender
from localcluster.bench.site import Site, Tell
from localcluster.bench.systems import System
from localcluster.bench.usage import usage_of
from localcluster.nvml.install import install
from localcluster.parts.progress import Progress
from localcluster.stack import AGENT_ACCOUNT, NAMESPACE, Stack

BURST = 2000
"""Pods of a burst, for which the share of refused binds is told."""

_BURST_NODES = 1000
_THROTTLED_PODS = 300
_AGENT_NODE = "node-of-the-agent"
_AGENT_PROFILE = "8x-h100"

_Sites = Mapping[System, Site]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What runs on clusters of one size.

    `pods` is the size of a batch on empty nodes; on full ones it is smaller where GPUs are few.
    """

    nodes: int
    pods: int
    systems: Sequence[System]
    rounds: int = 1
    #: Whether filters are asked one by one, with ever longer lists of names.
    growth: bool = False
    #: Whether what one size of clusters is enough for runs here: kube-scheduler as it comes, and a
    #: node agent.
    extras: bool = False

    @property
    def free_when_full(self) -> int:
        """GPUs that are left on full nodes."""
        return GPUS * (self.nodes // 10)

    @property
    def full_pods(self) -> int:
        """The size of a batch on full nodes, which leaves some GPUs; 0 where none is free."""
        return min(self.pods, self.free_when_full * 9 // 10)

    @property
    def burst(self) -> bool:
        """Whether a burst runs too."""
        return self.nodes == _BURST_NODES


def run(plan: Plan, *, progress: Progress) -> Results:
    """Run everything of one plan. Raises `Stalled` when pods stay behind, and `WrongPlacement`."""
    with progress.task(f"{plan.nodes} nodes") as tell, ExitStack() as opened:
        sites: dict[System, Site] = {}
        for system in plan.systems:
            if system is not System.THROTTLED:
                said = _prefixed(tell, system.value)
                site = Site(system, plan.nodes, filled=plan.full_pods > 0, tell=said)
                sites[system] = opened.enter_context(site)
        return _measured(plan, sites, tell)


def _measured(plan: Plan, sites: _Sites, tell: Tell) -> Results:
    outcomes: list[Outcome] = []
    rebuilds: list[Rebuild] = []
    growths: list[Growth] = []
    ours = list(_ours(sites))
    if plan.full_pods:
        load = Load(nodes=plan.nodes, pods=plan.full_pods, state=State.FULL)
        outcomes += _rounds(plan, sites, load)
        for site, stack in ours:
            tell(f"{site.system.value}: starting the extender again")
            rebuilds.append(restart_extender(site, stack))
        if plan.growth and ours:
            growths.append(measure_growth(ours[0][0], sites.get(System.STUB), tell=tell))
        for site in sites.values():
            site.clear()
    outcomes += _rounds(plan, sites, Load(nodes=plan.nodes, pods=plan.pods))
    outcomes += _once(plan, sites)
    agent = _agent_memory(ours[0][1]) if plan.extras and ours else None
    return Results(outcomes=outcomes, rebuilds=rebuilds, growths=growths, agent_memory=agent)


def _rounds(plan: Plan, sites: _Sites, load: Load) -> Iterator[Outcome]:
    # What we are compared with and we by turns; there and back, so that nobody always comes after
    # the same other.
    given = list(sites.values())
    order = [*given[::2], *given[1::2]]
    for number in range(plan.rounds):
        for site in order[:: 1 if number % 2 == 0 else -1]:
            yield site.batch(load, number=number, count_writes=number == 0)


def _once(plan: Plan, sites: _Sites) -> Iterator[Outcome]:
    alone = sites.get(System.NATIVE)
    if plan.extras and alone is not None and System.THROTTLED in plan.systems:
        load = Load(nodes=plan.nodes, pods=min(plan.pods, _THROTTLED_PODS))
        yield alone.batch(load, number=0, system=System.THROTTLED)
    if plan.burst:
        load = Load(nodes=plan.nodes, pods=BURST, state=State.BURST)
        for site, _ in _ours(sites):
            yield site.batch(load, number=0)


def _ours(sites: _Sites) -> Iterator[tuple[Site, Stack]]:
    for site in sites.values():
        if site.placement.stack is not None:
            yield site, site.placement.stack


def _prefixed(tell: Tell, what: str) -> Tell:
    return lambda detail: tell(f"{what}: {detail}")


def _agent_memory(stack: Stack) -> int:
    cluster = stack.cluster
    cluster.create_bare_nodes([_AGENT_NODE])
    root = stack.folder / "driver"
    install(root, _AGENT_PROFILE, node=_AGENT_NODE)
    # kube-controller-manager, which would make it, runs no more.
    account = {"name": AGENT_ACCOUNT, "namespace": NAMESPACE}
    cluster.apply([{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}])
    stack.start_agent(_AGENT_NODE, root)
    ready = (GpuPath.ANNOTATION, GpuPath.PLUGIN)
    cluster.wait_for(
        f"/api/v1/nodes/{_AGENT_NODE}",
        lambda node: (node["metadata"].get("annotations") or {}).get(PATH) in ready,
        timeout=60,
    )
    return usage_of(cluster.processes)[f"agent-{_AGENT_NODE}"].memory

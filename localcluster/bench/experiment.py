"""One experiment: a fresh cluster, all pods created while nobody schedules, then the scheduler.

Returns what was seen; how it is told is in `table`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import urllib3

from gpus.annotations import ASSIGNED, PATH, decode_assigned
from gpus.model import Path as GpuPath
from localcluster.api import Object
from localcluster.bench.arrivals import Arrivals
from localcluster.bench.exposition import Series, counter, grown, mean, quantile
from localcluster.bench.fleet import GPUS, PODS, create_nodes, create_pods, node_names
from localcluster.bench.systems import Placement, System
from localcluster.bench.usage import Usage, usage_of
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.nvml.install import install
from localcluster.parts.progress import Progress
from localcluster.stack import Stack
from localcluster.waiting import until

QUANTILES = (0.5, 0.99)
VERBS = ("filter", "prioritize", "bind")

_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REQUESTS = "apiserver_request_total"
_VERB_SECONDS = "gpudetour_extender_duration_seconds"
_WEBHOOK_SECONDS = "gpudetour_webhook_duration_seconds"
#: What the one loop of kube-scheduler spends on a pod: filters, scores, the extender's answer.
_LOOP_SECONDS = "scheduler_scheduling_algorithm_duration_seconds"
_AGENT_NODE = "node-of-the-agent"
_AGENT_PROFILE = "8x-h100"

Tell = Callable[[str], None]


class WrongPlacement(Exception):
    """A GPU was given twice, or a node more pods than it has GPUs: figures mean nothing then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much there is to do."""

    nodes: int
    pods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one experiment showed; latencies by what answered and the quantile, all in seconds.

    `loop` is the mean time that kube-scheduler's one loop spends on a pod, the extender's answer
    included.
    """

    system: System
    load: Load
    pods_per_second: float
    loop: float
    writes_per_pod: Mapping[str, float]
    latencies: Mapping[tuple[str, float], float] = field(default_factory=dict)
    refused_share: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    cpu_per_pod: Mapping[str, float] = field(default_factory=dict)


def run(system: System, load: Load, *, with_agent: bool, progress: Progress) -> Outcome:
    """Run one experiment; with `with_agent` the memory of a node agent is measured too.

    Raises `Stalled` when pods stay behind and `WrongPlacement`.
    """
    what = f"{system.value}, {load.nodes} nodes, {load.pods} pods"
    with (
        progress.task(what) as tell,
        TemporaryDirectory(prefix="bench-") as folder,
        LocalCluster(
            Path(folder) / "state", options=ControlPlaneOptions(node_lifecycle=False)
        ) as cluster,
    ):
        placement = Placement(system, cluster)
        tell("preparing")
        placement.prepare()
        tell("creating nodes")
        create_nodes(cluster, node_names(load.nodes), path=system.path)
        for created, _ in enumerate(create_pods(cluster.api, load.pods), start=1):
            tell(f"{created} of {load.pods} pods created")
        outcome = _observe(placement, cluster, system=system, load=load, tell=tell)
        if with_agent and placement.stack is not None:
            tell("starting a node agent")
            memory = {**outcome.memory, **_agent_memory(placement.stack)}
            outcome = replace(outcome, memory=memory)
    return outcome


def _observe(
    placement: Placement, cluster: LocalCluster, *, system: System, load: Load, tell: Tell
) -> Outcome:
    tell("waiting until nothing is written")
    before, used_before = _settled_writes(cluster), usage_of(cluster.processes)
    with Arrivals(cluster.admin_kubeconfig) as arrivals:
        placement.start_scheduler()
        arrivals.wait_for(load.pods, tell=tell)
        rate = arrivals.rate()
    used = usage_of(cluster.processes)
    _check(cluster.api.get(PODS)["items"], counted=system is not System.STUB)
    tell("waiting for the last Events")
    after = _settled_writes(cluster)
    texts = _own_metrics(placement.stack)
    return Outcome(
        system=system,
        load=load,
        pods_per_second=rate,
        loop=mean(_fetched(f"{cluster.scheduler.url}/metrics", cluster.ca_file), _LOOP_SECONDS),
        writes_per_pod=_per_pod(grown(before, after), load.pods),
        latencies=_latencies(texts),
        refused_share=_refused_share(texts),
        memory={name: one.memory for name, one in used.items()},
        cpu_per_pod={
            name: (one.cpu - used_before.get(name, Usage(memory=0, cpu=0.0)).cpu) / load.pods
            for name, one in used.items()
        },
    )


def _writes(cluster: LocalCluster) -> Series:
    everything = counter(cluster.api.text("/metrics"), _REQUESTS)
    return {labels: n for labels, n in everything.items() if dict(labels)["verb"] in _WRITES}


def _settled_writes(cluster: LocalCluster) -> Series:
    """The counts once nothing but Leases was written for a moment.

    kube-scheduler writes Events late, and the controller manager notices nodes late.
    """
    last: Series = {}

    def quiet() -> Series | None:
        nonlocal last
        before, last = last, _writes(cluster)
        changed = {dict(labels)["resource"] for labels in grown(before, last)}
        return last if changed <= {"leases"} else None

    return until(quiet, timeout=180, what="an API server that nobody writes to", interval=1.0)


def _per_pod(requests: Series, pods: int) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    for labels, count in requests.items():
        named = dict(labels)
        parts = (named["resource"], named["subresource"])
        found["/".join(part for part in parts if part)] += count
    return {name: count / pods for name, count in found.items()}


def _own_metrics(stack: Stack | None) -> dict[str, str]:
    if stack is None:
        return {}
    parts = ("extender", "webhook")
    return {part: _fetched(f"{stack.side_url(part)}/metrics") for part in parts}


def _fetched(url: str, ca_file: Path | None = None) -> str:
    ca_certs = str(ca_file) if ca_file is not None else None
    with urllib3.PoolManager(ca_certs=ca_certs, retries=False, timeout=5.0) as pool:
        return pool.request("GET", url).data.decode()


def _latencies(texts: Mapping[str, str]) -> dict[tuple[str, float], float]:
    if not texts:
        return {}
    found = {
        (verb, share): quantile(texts["extender"], _VERB_SECONDS, share, verb=verb)
        for verb in VERBS
        for share in QUANTILES
    }
    for share in QUANTILES:
        found["webhook", share] = quantile(texts["webhook"], _WEBHOOK_SECONDS, share)
    return {key: seconds for key, seconds in found.items() if not math.isnan(seconds)}


def _refused_share(texts: Mapping[str, str]) -> float | None:
    if not texts:
        return None
    bound, refused = (
        sum(counter(texts["extender"], name).values())
        for name in ("gpudetour_extender_binds_total", "gpudetour_extender_bind_refused_total")
    )
    return refused / (bound + refused)


def _check(pods: Iterable[Object], *, counted: bool) -> None:
    on_node: Counter[str] = Counter()
    holders: Counter[str] = Counter()
    for pod in pods:
        on_node[pod["spec"].get("nodeName", "")] += 1
        text = (pod["metadata"].get("annotations") or {}).get(ASSIGNED)
        if text is not None:
            holders.update(decode_assigned(text).devices())
    if on_node.pop("", 0) or (counted and any(count > GPUS for count in on_node.values())):
        raise WrongPlacement("a node got more pods than it has GPUs, or a pod none")
    if any(count > 1 for count in holders.values()):
        raise WrongPlacement("a GPU was given to two pods")


def _agent_memory(stack: Stack) -> dict[str, int]:
    stack.cluster.create_bare_nodes([_AGENT_NODE])
    root = stack.folder / "driver"
    install(root, _AGENT_PROFILE, node=_AGENT_NODE)
    stack.start_agent(_AGENT_NODE, root)
    ready = (GpuPath.ANNOTATION, GpuPath.PLUGIN)
    stack.cluster.wait_for(
        f"/api/v1/nodes/{_AGENT_NODE}",
        lambda node: (node["metadata"].get("annotations") or {}).get(PATH) in ready,
        timeout=60,
    )
    return {"node agent": usage_of(stack.cluster.processes)[f"agent-{_AGENT_NODE}"].memory}

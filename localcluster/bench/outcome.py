"""What was seen, as values: of batches, of restarts, and of filters asked one by one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from localcluster.bench.systems import System


class State(Enum):
    """What is on the nodes before a batch, or what kind of batch it is."""

    EMPTY = "empty"
    FULL = "90 % full"
    BURST = "burst"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much there is to do."""

    nodes: int
    pods: int
    state: State = State.EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one batch of pods showed; latencies by what answered and the quantile, all in seconds.

    `loop` is the mean time that kube-scheduler's one loop spends on a pod, the extender's answer
    included. Batches of one round ran right after each other, so only they are compared.
    """

    system: System
    load: Load
    round: int
    pods_per_second: float
    loop: float
    latencies: Mapping[tuple[str, float], float] = field(default_factory=dict)
    refused_share: float | None = None
    #: Requests that change something, by resource; empty where they were not waited for.
    writes_per_pod: Mapping[str, float] = field(default_factory=dict)
    #: Bytes.
    memory: Mapping[str, int] = field(default_factory=dict)
    #: Seconds.
    cpu_per_pod: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """An extender that was stopped and started again among bound GPU pods; times in seconds.

    `restart` is from the start of the process until it serves. `ledger` is the end of that: from
    when it leads, and begins to list pods, until it serves.
    """

    system: System
    nodes: int
    pods: int
    restart: float
    ledger: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Round trips of one kind of request; seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Filters asked one by one over HTTPS, with ever longer lists of names.

    Round trips are held by the length of the list: `ours` for a pod that fits on some of the nodes,
    `nowhere` for one that fits on none, `stub` for the stub. `requests` counts what `system`
    was asked, `api_calls` what its API server was asked meanwhile, by verb and resource, other than
    for Leases. A watch is counted when it ends, so those that end by themselves are left out.
    """

    system: System
    nodes: int
    pods: int
    ours: Mapping[int, Asked]
    nowhere: Mapping[int, Asked]
    stub: Mapping[int, Asked]
    requests: int
    api_calls: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """All that one run of the benchmark saw."""

    outcomes: Sequence[Outcome] = ()
    rebuilds: Sequence[Rebuild] = ()
    growths: Sequence[Growth] = ()
    #: Bytes.
    agent_memory: int | None = None

    def __add__(self, later: Results) -> Results:
        """Both, in this order."""
        return Results(
            outcomes=[*self.outcomes, *later.outcomes],
            rebuilds=[*self.rebuilds, *later.rebuilds],
            growths=[*self.growths, *later.growths],
            agent_memory=later.agent_memory if self.agent_memory is None else self.agent_memory,
        )

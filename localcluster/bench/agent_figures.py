"""What was seen of a node agent, which goals it meets, and how that is told."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from localcluster.bench.goals import Goal
from localcluster.bench.table import goals_table
from localcluster.files import write_atomically

LEASES = "leases"
_GPUS = "8 H100s"

#: Limits: MiB, % of a core, KiB, seconds, seconds.
_MEMORY = 100.0
_IDLE = 1.0
_INVENTORY = 8.0
_LOSS = 5.0
_START = 3.0
_KIBI, _MEBI = 1 << 10, 1 << 20
_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Some time, in seconds, in which nothing changes; `cpu` is in seconds too.

    `writes` are the agent's requests that change something, by resource and subresource.
    """

    seconds: float
    cpu: float
    writes: Mapping[str, int]

    @property
    def others(self) -> int:
        """Writes of something else than the Lease."""
        return sum(self.writes.values()) - self.writes.get(LEASES, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSeen:
    """All that one run saw; times in seconds, sizes in bytes.

    `advertised_by` tells where GPUs were looked for: at kubelet, or in the annotation. `losses` are
    by what happened to the GPU, `inventories` by the state of the GPUs. `client` is what importing
    the official Kubernetes client takes in an interpreter of its own.
    """

    advertised_by: str
    starts: Sequence[float]
    quiet: Quiet
    losses: Mapping[str, Sequence[float]]
    inventories: Mapping[str, int]
    memory: int
    client: int


def goals_of(seen: AgentSeen) -> Iterator[Goal]:
    """Yield all goals; of what was done several times, the worst counts."""
    by, quiet = seen.advertised_by, seen.quiet
    over = f"{quiet.seconds:.0f} s"
    share, resident = 100 * quiet.cpu / quiet.seconds, seen.memory / _MEBI
    yield _goal("resident memory of the agent", _GPUS, resident, "MiB", _MEMORY)
    yield _goal("CPU of an idle agent", over, share, "% of a core", _IDLE)
    beside = f"{over}, {quiet.writes.get(LEASES, 0)} of the Lease"
    yield _goal("writes of an idle agent but its Lease", beside, quiet.others, "writes", 0.0)
    for state, size in seen.inventories.items():
        yield _goal("`inventory`", f"{_GPUS}, {state}", size / _KIBI, "KiB", _INVENTORY)
    for what, times in seen.losses.items():
        where = f"{by}, {what}, worst of {len(times)}"
        yield _goal("a GPU's failure to what is advertised", where, max(times), "s", _LOSS)
    where = f"{by}, worst of {len(seen.starts)}"
    yield _goal("start to the first GPU advertised", where, max(seen.starts), "s", _START)


def _goal(text: str, where: str, value: float, unit: str, limit: float) -> Goal:
    return Goal(text=text, where=where, value=value, unit=unit, limit=limit)


def writes_in(audit: str, user: str) -> Counter[str]:
    """Count what a user wrote, by resource and subresource, in a log of audit.k8s.io/v1 Events.

    A last line that is still being written does not count.
    """
    found: Counter[str] = Counter()
    for line in audit.splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        event = json.loads(line)
        if event["user"]["username"] == user and event["stage"] == "ResponseComplete":
            wrote = event["objectRef"]
            found["/".join(filter(None, (wrote["resource"], wrote.get("subresource"))))] += 1
    return found


def tell_agent(seen: AgentSeen, *, output: Path) -> None:
    """Print the goals, and write all of it beside `output`."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    goals = list(goals_of(seen))
    console.print(goals_table(goals))
    target = output.with_name(f"{output.stem}-agent.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    document = asdict(seen) | {"goals": [asdict(goal) | {"met": goal.met} for goal in goals]}
    write_atomically(target, json.dumps(document, indent=2).encode())
    console.print(
        f"The agent's memory is that of a process with a kubeconfig, which takes the official\n"
        f"Kubernetes client to read: importing that alone takes {seen.client / _MEBI:.0f} MiB,"
        f" and in a pod it is not imported.\nAll of it: {target}"
    )

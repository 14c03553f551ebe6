"""Simulated machines and keepers that read them, taken down after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpus.model import NodeInventory
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from nodeagent.inventory.attempts import Patience
from nodeagent.inventory.keeper import InventoryKeeper, Rules, node_keeper
from nodeagent.inventory.nvml import NvmlSource
from nodeagent.inventory.session import Session
from nodeagent.inventory.standing import HoldDown, Moment

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@dataclass
class Clock:
    """A monotonic clock that stands still until it is moved; it begins at noon."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def moment(self) -> Moment:
        return Moment(self.now, self.wall())

    def wall(self) -> datetime:
        return NOON + timedelta(seconds=self.now)


@dataclass
class Reader:
    """Reads a machine through all its sources, NVML first."""

    machine: Machine
    clock: Clock
    rules: Rules
    patience: Patience = field(default_factory=Patience)
    boot: str | None = "boot-1"

    def __post_init__(self) -> None:
        self.nvml = NvmlSource(
            self.machine.driver_root,
            policy=self.rules.health,
            patience=self.patience,
            clock=self.clock,
            now=self.clock.wall,
        )
        self.restart()

    def restart(self) -> None:
        """Forget all that was known, as a new agent does."""
        self.keeper: InventoryKeeper = node_keeper(
            self.machine.driver_root,
            self.nvml,
            rules=self.rules,
            now=self.clock.moment,
            boot=self.boot,
        )

    @property
    def session(self) -> Session:
        return self.nvml.session

    def read(self) -> NodeInventory:
        return self.keeper.read()


#: GPUs come back at once: most tests are not about time.
AT_ONCE = Rules(hold_down=HoldDown(base=0.0))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def machine_of(tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Installs a profile; hanging calls end with the test."""
    machines = []

    def make(profile: str) -> Machine:
        machines.append(install(tmp_path, profile, node="node1"))
        return machines[-1]

    yield make
    for machine in machines:
        machine.release()


@pytest.fixture
def source_of(clock: Clock) -> Iterator[Callable[..., Reader]]:
    """Reads a machine; NVML is down after the test."""
    readers: list[Reader] = []

    def read(
        machine: Machine, rules: Rules = AT_ONCE, *, patience: Patience | None = None
    ) -> Reader:
        readers.append(Reader(machine, clock, rules, patience or Patience()))
        return readers[-1]

    yield read
    for reader in readers:
        reader.machine.release()
        reader.nvml.close()

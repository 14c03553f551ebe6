"""Simulated machines and sources that read them, taken down after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from nodeagent.inventory.nvml import NvmlSource


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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
def source_of(clock: Clock) -> Iterator[Callable[[Machine], NvmlSource]]:
    """Reads a machine; NVML is down after the test."""
    sources: list[tuple[Machine, NvmlSource]] = []

    def read(machine: Machine) -> NvmlSource:
        source = NvmlSource(machine.driver_root, clock=clock, reenumerate_after=60)
        sources.append((machine, source))
        return source

    yield read
    for machine, source in sources:
        machine.release()
        source.close()

"""Loads the simulated library into the real pynvml by absolute path, as production does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest

from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine


def _load(library: Path | None) -> None:
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlLib = None if library is None else ctypes.CDLL(str(library))


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[Callable[[str], Machine]]:
    """Installs a profile and loads its library, without nvmlInit."""

    def start(profile: str) -> Machine:
        machine = install(tmp_path, profile, node="node1")
        _load(machine.library)
        return machine

    yield start
    _load(None)


@pytest.fixture
def start(unstarted: Callable[[str], Machine]) -> Iterator[Callable[[str], Machine]]:
    """The same with nvmlInit, and nvmlShutdown afterwards."""
    machines = []

    def begin(profile: str) -> Machine:
        machines.append(unstarted(profile))
        pynvml.nvmlInit()
        return machines[-1]

    yield begin
    for machine in machines:
        machine.release()
        pynvml.nvmlShutdown()

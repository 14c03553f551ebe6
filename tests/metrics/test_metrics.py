"""All parts' metrics: named as Prometheus has it, few, and each described in docs/metrics.md."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.monitoring.site import API_SERVER
from localcluster.shipped import MANIFESTS
from nodeagent.metrics import MOST_OF_A_GPU
from tests.metrics.scrapes import State
from tests.metrics.states import GOOD

pytestmark = pytest.mark.controlplane

DOCUMENT = MANIFESTS.parent / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(gpudetour_\w+)` \| (\w+) \|", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (gpudetour_\w+) (\w+)$", re.MULTILINE)
#: Series of a process, its GPUs left out; the extender's histograms are most of them.
MOST_OF_A_PROCESS = 300


def _texts(state: State) -> Iterator[tuple[str, str]]:
    for scrape in (state.first, state.second):
        yield from ((t, text) for t, text in scrape.texts.items() if t != API_SERVER and text)


def test_promtool_finds_nothing_wrong_with_what_any_part_says(
    states: dict[str, State], promtool: Path
) -> None:
    for name in (GOOD, "GPUDetourGPUUnhealthy", "GPUDetourPodsWaitLong"):
        for target, text in _texts(states[name]):
            done = subprocess.run(
                [promtool, "check", "metrics"],
                input=text,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, ""), f"{target}: {done.stdout}"


def test_the_document_has_every_metric_with_its_type_and_no_other(
    states: dict[str, State],
) -> None:
    documented = dict(_ROW.findall(DOCUMENT.read_text()))
    told: dict[str, str] = {}
    for state in states.values():
        for _, text in _texts(state):
            told |= _TYPE.findall(text)
    assert documented == told


def test_every_metric_of_the_document_is_alive(states: dict[str, State]) -> None:
    alive = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for state in states.values()
        for name in state.second.names()
    }
    assert {name for name, _ in _ROW.findall(DOCUMENT.read_text())} <= alive


def test_series_are_few(states: dict[str, State]) -> None:
    for state in states.values():
        for target, text in _texts(state):
            lines = [line for line in text.splitlines() if line.startswith("gpudetour_")]
            gpus = set(re.findall(r'uuid="(GPU-[^"]+)"', text))
            of_gpus = [line for line in lines if 'uuid="' in line]
            assert len(of_gpus) <= MOST_OF_A_GPU * len(gpus), target
            assert len(lines) - len(of_gpus) <= MOST_OF_A_PROCESS, target

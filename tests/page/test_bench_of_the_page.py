"""The part of the benchmark that is about the page: its arithmetic, and a small run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster.bench.page import PagePlan, measure_page
from localcluster.bench.page_figures import Load, PageSeen, goals_of, tell_page
from localcluster.chromium import Chromium
from localcluster.parts.progress import SilentProgress

GOOD = PageSeen(
    nodes=1000,
    loads=[Load(painted=0.2, bytes=50_000), Load(painted=1.0, bytes=50_000)],
    file=[0.1],
    update=200,
    largest=100 << 10,
)


def unmet(seen: PageSeen) -> list[str]:
    return [goal.text for goal in goals_of(seen) if not goal.met]


def test_what_is_just_at_its_limit_is_met_and_the_worst_counts() -> None:
    slow = replace(GOOD, loads=[*GOOD.loads, Load(painted=1.1, bytes=1)])

    assert unmet(GOOD) == []
    assert unmet(slow) == ["first GPUs drawn after the page is asked for"]
    assert unmet(replace(GOOD, largest=(100 << 10) + 1)) == ["an update of the page"]


@pytest.mark.controlplane
def test_a_small_run(browser: Chromium, control_plane_parts: None, tmp_path: Path) -> None:
    # The benchmark has a browser of its own; the fixture tells whether there can be one.
    del browser, control_plane_parts
    seen = measure_page(PagePlan(nodes=20, loads=1), progress=SilentProgress())
    tell_page(seen, output=tmp_path / "bench.json")

    told = json.loads((tmp_path / "bench-page.json").read_text())
    assert (told["nodes"], len(told["loads"]), len(told["file"])) == (20, 1, 1)
    assert 0 < seen.update < seen.largest < seen.loads[0].bytes
    assert all(load.painted > 0 for load in seen.loads)

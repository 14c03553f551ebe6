"""Goals, tables and the plot of the benchmark: pure functions of what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest
from rich.console import Console, RenderableType

from localcluster.bench.chart import Axis, series, write_chart
from localcluster.bench.figures import rows
from localcluster.bench.goals import Goal, goals, steepest
from localcluster.bench.growth import api_calls, asked
from localcluster.bench.outcome import Asked, Growth, Load, Outcome, Rebuild, Results, State
from localcluster.bench.systems import System
from localcluster.bench.table import (
    document,
    goals_table,
    growth_table,
    rebuild_table,
    speed_table,
    usage_table,
)

MEBI = 1 << 20


def batch(system: System, rate: float, *, nodes: int, state: State = State.FULL) -> Outcome:
    ours = system.path is not None
    return Outcome(
        system=system,
        load=Load(nodes=nodes, pods=10, state=state),
        round=0,
        pods_per_second=rate,
        loop=0.01,
        latencies={("filter", 0.99): 0.02} if ours else {},
        refused_share=0.004 if ours else None,
        writes_per_pod={"pods/binding": 1.0, "configmaps": 1.0, "events": 1.0},
        memory={"extender": 150 * MEBI, "webhook": 70 * MEBI} if ours else {},
        cpu_per_pod={"extender": 0.002} if ours else {},
    )


def growth(ours: Mapping[int, float], *, api_calls: Mapping[str, float] | None = None) -> Growth:
    points = {names: Asked(p50=seconds, p99=2 * seconds) for names, seconds in ours.items()}
    half = {names: Asked(p50=one.p50 / 2, p99=one.p99 / 2) for names, one in points.items()}
    return Growth(
        system=System.ANNOTATION,
        nodes=5000,
        pods=8000,
        ours=points,
        nowhere=points,
        stub=half,
        requests=100,
        api_calls=api_calls or {},
    )


def results(nodes: int = 5000) -> Results:
    systems = {System.NATIVE: 100.0, System.STUB: 120.0, System.ANNOTATION: 105.0}
    return Results(
        outcomes=[
            batch(system, rate, nodes=nodes, state=state)
            for state in State
            for system, rate in systems.items()
        ],
        rebuilds=[
            Rebuild(system=System.ANNOTATION, nodes=nodes, pods=8000, restart=6.0, ledger=2.5)
        ],
        growths=[growth({100: 0.001, 1000: 0.005})],
        agent_memory=40 * MEBI,
    )


def reached(found: Results) -> dict[tuple[str, str], Goal]:
    return {(goal.text, goal.where): goal for goal in goals(rows(found.outcomes), found)}


def test_each_goal_is_held_against_what_was_measured() -> None:
    found = reached(results())
    where = "annotation path, 5000 nodes"

    alone = found["pods/s beside kube-scheduler alone", f"{where}, empty"]
    assert (alone.value, alone.limit, alone.met) == (1.05, 1.0, True)
    stub = found["pods/s beside the stub with the same shortlist", f"{where}, empty"]
    assert (stub.value, stub.limit, stub.met) == (0.875, 0.9, False)
    assert found["filter p99 at 5,000 nodes", f"{where}, 90 % full"].limit == 30
    assert found["binds refused in a burst", f"{where}, burst"].met
    assert found["writes for a bind on the annotation path", f"{where}, empty"].value == 2
    memory = found["resident memory at 5,000 nodes and 8,000 pods", f"{where}, 90 % full"]
    assert (memory.value, memory.met) == (150, True)
    assert found["ledger rebuilt from 8,000 GPU pods", where].value == 2.5
    assert all(goal.met for (text, _), goal in found.items() if "filter and prio" in text)


def test_small_clusters_need_not_outrun_kube_scheduler_alone() -> None:
    found = reached(results(nodes=100))

    assert "pods/s beside kube-scheduler alone" not in {text for text, _ in found}
    assert "pods/s beside the stub with the same shortlist" in {text for text, _ in found}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({10: 0.001, 100: 0.001, 1000: 0.001}, 0.1),
        ({10: 0.001, 100: 0.010}, 1.0),
        ({10: 0.001, 100: 0.002, 200: 0.008}, 2.0),
    ],
)
def test_growth_is_judged_where_it_is_steepest(
    measured: Mapping[int, float], expected: float
) -> None:
    assert steepest(growth(measured)) == pytest.approx(expected)


def test_an_api_call_while_filters_were_asked_misses_the_goal() -> None:
    found = Results(growths=[growth({10: 0.001, 100: 0.002}, api_calls={"GET pods": 1})])

    met = {goal.text: goal.met for goal in goals([], found)}
    assert met == {
        "API calls in filter and prioritize": False,
        "growth of a filter by that of its list of names": True,
    }


def test_round_trips_come_to_a_median_and_the_last_hundredth() -> None:
    found = asked([float(number) for number in range(101)])

    assert (found.p50, found.p99) == (50, 99)


def shown(*tables: RenderableType) -> str:
    console = Console(width=150, file=StringIO())
    for table in tables:
        console.print(table)
    return cast(StringIO, console.file).getvalue()


def test_the_tables_for_people_say_what_the_document_for_programs_says() -> None:
    found = results()
    figures = rows(found.outcomes)
    held = goals(figures, found)
    text = shown(
        speed_table(figures),
        usage_table(figures, agent_memory=found.agent_memory),
        rebuild_table(found.rebuilds),
        growth_table(found.growths[0]),
        goals_table(held),
    )

    for system in (System.NATIVE, System.STUB, System.ANNOTATION):
        assert system.value in text
    for cell in ("1.05", "0.88", "90 % full", "40 MiB", "2.50", "not met"):
        assert cell in text
    written = json.loads(json.dumps(document(figures, held, found)))
    assert len(written["rows"]) == len(figures)
    assert [goal["met"] for goal in written["goals"]] == [goal.met for goal in held]
    assert written["growth"][0]["ours"]["100"]["p50"] == 0.001
    assert written["rebuilds"][0]["system"] == "annotation path"


def test_the_plot_draws_milliseconds_over_names(tmp_path: Path) -> None:
    measured = growth({10: 0.001, 1000: 0.004})

    assert series(measured)["some nodes fit"] == [(10, 1.0), (1000, 4.0)]
    assert series(measured)["do-nothing stub"] == [(10, 0.5), (1000, 2.0)]
    target = tmp_path / "build" / "growth.svg"
    write_chart(measured, target)
    picture = ElementTree.parse(target).getroot()  # noqa: S314 - just written by ourselves
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert "5,000 nodes, 8,000 bound pods" in target.read_text()


@pytest.mark.parametrize(
    ("most", "marks"),
    [
        (5000, [0, 1000, 2000, 3000, 4000, 5000]),
        (100, [0, 20, 40, 60, 80, 100]),
        (22.9, [0, 5, 10, 15, 20, 25]),
        (0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
    ],
)
def test_an_axis_has_round_marks_up_to_the_greatest_value(most: float, marks: list[float]) -> None:
    axis = Axis(most=most, start=400, end=0)

    assert axis.marks == pytest.approx(marks)
    assert axis.place(0) == 400
    assert axis.place(marks[-1]) == pytest.approx(0, abs=1e-9)
    assert 0 <= axis.place(most) < 400


def test_api_calls_are_all_but_leases_and_watches_that_end() -> None:
    def asked_for(verb: str, resource: str) -> frozenset[tuple[str, str]]:
        return frozenset({("verb", verb), ("resource", resource), ("code", "200")})

    before = {asked_for("GET", "pods"): 3.0}
    after = {
        asked_for("GET", "pods"): 5.0,
        asked_for("PUT", "leases"): 4.0,
        asked_for("WATCH", "nodes"): 1.0,
        asked_for("GET", ""): 2.0,
    }

    assert api_calls(before, after) == {"GET pods": 2}

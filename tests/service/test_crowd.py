"""Who has to leave when there are too many connections, and how many there may be."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.crowd import CONNECTIONS, Crowd, Stage


@dataclass(eq=False)
class Brought:
    stage: Stage
    since: float
    busy: bool = False


@dataclass(eq=False)
class Connection:
    peer: Brought = field(default_factory=lambda: Brought(Stage.SILENT, 0.0))


def connection(stage: Stage, since: float, *, busy: bool = False) -> Connection:
    return Connection(Brought(stage, since, busy))


def crowd(*connections: Connection) -> Crowd:
    found = Crowd()
    for each in connections:
        found.put(each)
    return found


def test_who_brought_least_leaves_first_and_of_those_who_is_there_longest() -> None:
    connections = [
        connection(Stage.SENDING, 1),
        connection(Stage.SILENT, 2),
        connection(Stage.SILENT, 3),
        connection(Stage.QUIET, 1),
        connection(Stage.SHAKING, 1),
    ]
    strangers = crowd(*connections)
    order = []
    while (leaving := strangers.first_to_leave(10.0)) is not None:
        order.append(connections.index(leaving))
        strangers.remove(leaving)

    assert order == [1, 2, 4, 3, 0]
    assert len(strangers) == 0


@pytest.mark.parametrize(
    ("stage", "now"), [(Stage.SILENT, 5.05), (Stage.SHAKING, 5.4), (Stage.SENDING, 5.4)]
)
def test_nobody_leaves_who_just_came(stage: Stage, now: float) -> None:
    assert crowd(connection(stage, 5)).first_to_leave(now) is None


def test_nobody_leaves_whom_a_thread_works_on_and_the_next_is_seen() -> None:
    busy, waiting = connection(Stage.SILENT, 1, busy=True), connection(Stage.SILENT, 2)

    assert crowd(busy).first_to_leave(10.0) is None
    assert crowd(busy, waiting).first_to_leave(10.0) is waiting


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([*Stage, None])), min_size=1, max_size=40
    )
)
def test_a_connection_is_counted_once_whatever_it_brings(
    moves: list[tuple[int, Stage | None]],
) -> None:
    connections = [connection(Stage.SILENT, number) for number in range(6)]
    strangers, inside = Crowd(), set()
    for index, stage in moves:
        if stage is None:
            strangers.remove(connections[index])
            inside.discard(index)
        else:
            connections[index].peer.stage = stage
            strangers.put(connections[index])
            inside.add(index)

    assert len(strangers) == len(inside)
    left = set()
    while (leaving := strangers.first_to_leave(100.0)) is not None:
        left.add(connections.index(leaving))
        strangers.remove(leaving)
    assert left == inside


@pytest.mark.parametrize(
    ("soft", "hard", "most"), [(1024, 20000, CONNECTIONS), (128, 128, 64), (40, 40, 16)]
)
def test_there_are_as_many_places_as_files_may_be_open(soft: int, hard: int, most: int) -> None:
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "from service.crowd import places; print(places())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout == f"{most}\n", done.stderr

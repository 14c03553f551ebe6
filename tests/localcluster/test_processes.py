"""Processes are found, watched and ended, by whichever run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.processes import ProcessDied, Processes
from localcluster.processtable import parse_stat, process
from localcluster.waiting import until

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"
DIES_WHEN_TOLD = "while [ ! -e {} ]; do sleep 0.01; done; echo no such flag; exit 3"
PARENT_OF_TWO = "sleep 300 & setsid -f sleep 0; sleep 300 & echo $! > {}; wait"


def at(folder: Path) -> Processes:
    return Processes(
        run=folder / "run", logs=folder / "logs", environment={"PATH": os.environ["PATH"]}
    )


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = at(tmp_path)
    yield processes
    processes.stop_all()


def content(note: Path) -> str:
    return note.read_text() if note.exists() else ""


def gone(pid: int) -> bool:
    found = process(pid)
    return found is None or found.ended


def test_a_process_runs_with_the_given_environment_and_its_output_is_kept(
    processes: Processes,
) -> None:
    processes.start("teller", ["sh", "-c", "echo $COLOUR; exec sleep 300"], env={"COLOUR": "blue"})

    until(lambda: processes.tail("teller") == "blue", timeout=30, what="output")
    assert processes.alive("teller")
    assert processes.names() == ["teller"]


def test_a_process_leads_a_session_of_its_own(processes: Processes) -> None:
    pid = processes.start("sleeper", ["sleep", "300"])

    assert os.getsid(pid) == pid != os.getsid(0)


def test_stopping_ends_the_children_too(processes: Processes, tmp_path: Path) -> None:
    note = tmp_path / "child"
    leader = processes.start("family", ["sh", "-c", PARENT_OF_TWO.format(note)])
    child = int(until(lambda: content(note), timeout=30, what="child"))

    processes.stop("family")

    assert gone(leader)
    assert gone(child)
    assert processes.names() == []


def test_children_are_ended_even_when_their_parent_has_died(
    processes: Processes, tmp_path: Path
) -> None:
    note = tmp_path / "child"
    leader = processes.start("family", ["sh", "-c", PARENT_OF_TWO.format(note)])
    child = int(until(lambda: content(note), timeout=30, what="child"))
    os.kill(leader, signal.SIGKILL)
    until(lambda: not processes.alive("family"), timeout=30, what="end of the parent")

    processes.stop("family")

    assert gone(child)


def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(processes: Processes) -> None:
    pid = processes.start("stubborn", ["sh", "-c", STUBBORN], grace=0.3)
    until(lambda: processes.tail("stubborn") == "ready", timeout=30, what="trap")
    started = time.monotonic()

    processes.stop("stubborn")

    assert gone(pid)
    assert 0.3 <= time.monotonic() - started < 5


def test_a_later_run_ends_what_an_earlier_one_started(tmp_path: Path) -> None:
    earlier, later = at(tmp_path), at(tmp_path)
    pid = earlier.start("sleeper", ["sleep", "300"])

    assert later.pid("sleeper") == pid
    later.stop_all()

    assert gone(pid)
    assert not earlier.alive("sleeper")
    earlier.stop_all()


def test_a_process_survives_its_starter_and_is_ended_by_the_state_folder(tmp_path: Path) -> None:
    starter = (
        "import os, signal, sys; from pathlib import Path;"
        "from localcluster.processes import Processes; folder = Path(sys.argv[1]);"
        "Processes(run=folder / 'run', logs=folder / 'logs', environment={'PATH': sys.argv[2]})"
        ".start('sleeper', ['sleep', '300']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", starter, str(tmp_path), os.environ["PATH"]],
        cwd=Path(__file__).parents[2],
        check=False,
    )

    later = at(tmp_path)
    pid = later.pid("sleeper")
    assert pid is not None
    later.stop_all()
    assert gone(pid)


def test_another_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as stranger:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text().split(" ")
        stat[21] = str(int(stat[21]) - 1)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "old.process").write_text("5.0\n" + " ".join(stat))

        processes = at(tmp_path)
        assert not processes.alive("old")
        processes.stop_all()

        assert not gone(stranger.pid)
        stranger.kill()


def test_a_death_is_told_with_the_last_lines(processes: Processes, tmp_path: Path) -> None:
    told = tmp_path / "told"
    processes.start("failing", ["sh", "-c", DIES_WHEN_TOLD.format(told)])

    told.touch()

    with pytest.raises(ProcessDied, match=r"(?s)failing ended with status 3.*no such flag"):
        until(lambda: processes.check("failing"), timeout=30, what="its death")


def test_waiting_for_a_process_that_dies_ends_at_once(processes: Processes, tmp_path: Path) -> None:
    told = tmp_path / "told"
    started = time.monotonic()
    processes.start("failing", ["sh", "-c", DIES_WHEN_TOLD.format(told)])

    told.touch()

    with pytest.raises(ProcessDied, match="no such flag"):
        processes.wait_ready("failing", lambda: False, timeout=60)

    assert time.monotonic() - started < 30


def test_a_program_that_does_not_exist_is_told(processes: Processes) -> None:
    def start() -> None:
        processes.start("missing", ["/no/such/program"])
        processes.wait_ready("missing", lambda: False, timeout=60)

    with pytest.raises(ProcessDied, match="/no/such/program"):
        start()


def test_a_name_in_use_is_refused(processes: Processes) -> None:
    processes.start("sleeper", ["sleep", "300"])

    with pytest.raises(ValueError, match="stop it first"):
        processes.start("sleeper", ["sleep", "300"])


@pytest.mark.parametrize("name", ["sleep", "a b", "(odd) name)", ") R 1 1"])
def test_any_process_name_is_read(name: str) -> None:
    rest = "S 1 7 42 0 -1 4194560 0 0 0 0 1 2 0 0 20 0 1 0 98765 1000 100"

    found = parse_stat(f"7 ({name}) {rest}")

    assert (found.pid, found.name, found.session, found.started) == (7, name, 42, 98765)
    assert not found.ended

"""Killed writers and two runs at once do no harm."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from localcluster.files import remove_unfinished, replacing, write_atomically
from localcluster.parts.locks import exclusive
from localcluster.waiting import until

WRITER = """
import sys, time
from pathlib import Path
from localcluster.files import replacing
with replacing(Path(sys.argv[1]), mode=0o755) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""

HOLDER = """
import sys
from pathlib import Path
from localcluster.parts.locks import exclusive
def waiting():
    print("waiting", flush=True)
with exclusive(Path(sys.argv[1]), waiting=waiting):
    print("holding", flush=True)
    sys.stdin.readline()
    with open(sys.argv[2], "a") as journal:
        journal.write(sys.argv[3] + "\\n")
"""


def run(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command: Sequence[str] = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=20)


def test_a_killed_writer_leaves_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "program"
    target.write_text("older")
    with run(WRITER, target) as writer:
        assert line_of(writer) == "writing"
        writer.send_signal(signal.SIGKILL)

    assert target.read_text() == "older"


def test_the_next_run_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    target = tmp_path / "program"
    with run(WRITER, target) as writer:
        line_of(writer)
        writer.send_signal(signal.SIGKILL)
    assert len(names_in(tmp_path)) == 1

    remove_unfinished(tmp_path)
    write_atomically(target, b"whole", mode=0o700)

    assert names_in(tmp_path) == ["program"]
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "program", mode=0o644) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert names_in(tmp_path) == []


def test_the_second_run_says_that_it_waits_and_comes_after_the_first(tmp_path: Path) -> None:
    lock, journal = tmp_path / "lock", tmp_path / "journal"
    with run(HOLDER, lock, journal, "first") as first:
        assert line_of(first) == "holding"
        with run(HOLDER, lock, journal, "second") as second:
            assert line_of(second) == "waiting"
            let_go(first)
            assert line_of(second) == "holding"
            let_go(second)

    assert journal.read_text() == "first\nsecond\n"
    assert not lock.exists()


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with run(HOLDER, lock, tmp_path / "journal", "killed") as holder:
        assert line_of(holder) == "holding"
        holder.send_signal(signal.SIGKILL)

    with exclusive(lock, waiting=lambda: pytest.fail("waited for a dead process")):
        pass


def test_many_runs_exclude_each_other(tmp_path: Path) -> None:
    lock, journal = tmp_path / "lock", tmp_path / "journal"
    runs = [run(HOLDER, lock, journal, str(number)) for number in range(5)]
    for process in runs:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    until(lambda: all(p.poll() is not None for p in runs), timeout=30, what="five holders")

    for process in runs:
        process.communicate()
    assert sorted(journal.read_text().split()) == ["0", "1", "2", "3", "4"]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]

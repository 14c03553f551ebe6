"""The command, and that nothing is left of a cluster however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.waiting import until
from tests.localcluster.footprint import processes_of

pytestmark = pytest.mark.controlplane

COMMAND = [sys.executable, "-m", "localcluster"]
ROOT = Path(__file__).parents[2]

OWNER = """
import sys
from pathlib import Path
from localcluster.cluster import LocalCluster
with LocalCluster(Path(sys.argv[1])) as cluster:
    print("up", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def state(control_plane_parts: None, tmp_path: Path) -> Iterator[Path]:
    del control_plane_parts
    yield tmp_path / "s"
    localcluster("down", "--state", tmp_path / "s")


def localcluster(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def check_nothing_is_left(state: Path) -> None:
    assert processes_of(state) == {}
    assert not state.exists()
    assert [path.name for path in state.parent.iterdir()] == []


def test_a_cluster_is_there_after_up_and_gone_after_down(state: Path) -> None:
    went_up = localcluster("up", "--state", state, "--simulated", "2")

    assert went_up.returncode == 0, went_up.stderr
    assert went_up.stdout == f"export KUBECONFIG={state}/admin.kubeconfig\n"
    status = localcluster("status", "--state", state)
    assert status.returncode == 0
    for expected in ("etcd", "kube-apiserver", "kube-scheduler", "kwok", "simulated-2"):
        assert expected in status.stdout
    assert localcluster("kubeconfig", "--state", state).stdout == f"{state}/admin.kubeconfig\n"
    again = localcluster("up", "--state", state)
    assert again.returncode == 1
    assert "holds a cluster already" in again.stderr

    assert localcluster("down", "--state", state).returncode == 0

    check_nothing_is_left(state)


def test_a_died_process_shows_in_the_status(state: Path) -> None:
    assert localcluster("up", "--state", state).returncode == 0
    (scheduler,) = [pid for pid, words in processes_of(state).items() if "scheduler" in words[0]]

    os.kill(scheduler, signal.SIGKILL)
    until(lambda: scheduler not in processes_of(state), timeout=10, what="its end")

    status = localcluster("status", "--state", state)
    assert status.returncode == 3
    assert "died" in status.stdout
    assert localcluster("down", "--state", state).returncode == 0
    check_nothing_is_left(state)


def test_without_a_cluster_the_commands_say_so(tmp_path: Path) -> None:
    state = tmp_path / "s"

    assert localcluster("status", "--state", state).returncode == 4
    assert localcluster("down", "--state", state).returncode == 0
    asked = localcluster("kubeconfig", "--state", state)
    assert asked.returncode == 1
    assert "no cluster" in asked.stderr
    assert localcluster("parts", "kube-dns").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_foreground_cluster_ends_with_its_command(state: Path, number: signal.Signals) -> None:
    command = [*COMMAND, "up", "--foreground", "--state", str(state)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        until(lambda: "Ctrl-C" in (owner.stdout or sys.stdin).readline(), timeout=60, what="up")
        owner.send_signal(number)
        assert owner.wait(timeout=60) == 0

    check_nothing_is_left(state)


def test_a_cluster_ends_when_its_owner_is_killed(state: Path) -> None:
    with owner_of(state) as owner:
        owner.send_signal(signal.SIGKILL)

    until(lambda: not state.exists(), timeout=60, what="the guard's work")
    until(lambda: not processes_of(state), timeout=10, what="the guard's end")
    check_nothing_is_left(state)


def test_down_cleans_up_when_owner_and_guard_were_killed(state: Path) -> None:
    with owner_of(state) as owner:
        (guard,) = [pid for pid, words in processes_of(state).items() if "guard" in words]
        os.kill(guard, signal.SIGKILL)
        owner.send_signal(signal.SIGKILL)
    assert len(processes_of(state)) >= 4

    assert localcluster("down", "--state", state).returncode == 0

    check_nothing_is_left(state)


def owner_of(state: Path) -> subprocess.Popen[str]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    return owner

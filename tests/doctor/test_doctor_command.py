"""`gpudetour doctor` as people and programs call it: options, exit status, what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.__main__ import main
from doctor.checks.catalogue import CHECKS
from doctor.progress import Progress
from tests.doctor.errors import ERROR_1, ERROR_4
from tests.doctor.nodes import DRIVER, LIBRARIES, NodeTree, k3s


def doctor(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], input=stdin)


def test_a_log_from_standard_input_is_judged() -> None:
    result = doctor(
        "--host-root", os.devnull.replace("null", ""), "--plugin-log", "-", stdin=ERROR_1
    )

    assert "log-incompatible-strategy" in result.output


def test_the_verdict_comes_first_and_the_exit_status_says_broken(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(ERROR_4.format("cdi"))

    result = doctor(
        "--host-root", str(k3s(tmp_path / "root").root), "--plugin-log", str(tmp_path / "log")
    )

    assert result.exit_code == 1
    assert result.output.startswith("BROKEN: ")
    assert "mend " in result.output


def test_nothing_wrong_is_status_0(tmp_path: Path) -> None:
    NodeTree(tmp_path).folder("sys/bus/pci/devices")

    result = doctor("--host-root", str(tmp_path))

    assert result.exit_code == 0
    assert result.output.startswith("NOTHING TO DO: this node has no NVIDIA GPU")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host-root", "/does/not/exist"),
        ("--plugin-log", "/does/not/exist"),
        ("-o", "xml"),
        ("--nonsense",),
        ("extra",),
    ],
)
def test_a_wrong_call_is_status_2(arguments: tuple[str, ...]) -> None:
    assert doctor(*arguments).exit_code == 2


def test_no_api_server_is_status_2(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "users: [{name: a, user: {}}]\n"
    )

    result = CliRunner().invoke(main, ["--kubeconfig", str(config), "doctor", "--node", "n1"])

    assert result.exit_code == 2
    assert "cannot read the cluster" in result.output


def test_json_holds_every_check_and_its_commands(tmp_path: Path) -> None:
    node = k3s(tmp_path).remove(f"{LIBRARIES}/libnvidia-ml.so.1")

    result = doctor("--host-root", str(node.root), "-o", "json")
    report = json.loads(result.stdout)

    assert result.exit_code == 1
    assert report["version"] == 1
    assert report["broken"] is True
    assert {found["id"] for found in report["findings"]} == {check.id for check in CHECKS}
    by_id = {found["id"]: found for found in report["findings"]}
    assert by_id["driver-library"]["outcome"] == "broken"
    assert by_id["driver-library"]["because_of"] == []
    assert by_id["driver-library"]["mend"]
    assert DRIVER in by_id["driver-loaded"]["saw"]


def test_verbose_shows_every_check(tmp_path: Path) -> None:
    result = doctor("--host-root", str(k3s(tmp_path).root), "--verbose")

    assert all(f"{check.id}: " in result.output for check in CHECKS)


def test_nothing_of_the_node_is_written(tmp_path: Path) -> None:
    node = k3s(tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}

    doctor("--host-root", str(node.root), "--verbose")

    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_this_machine_gives_a_report() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "doctor", "-o", "json"],
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert done.returncode in (0, 1), done.stderr.decode()
    assert json.loads(done.stdout)["findings"]


def test_progress_is_told_only_to_those_who_wait() -> None:
    told: list[str] = []
    heard = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        heard.set()

    with Progress(tell, patience=3600.0) as progress:
        progress.step("a")
    assert told == []
    with Progress(tell, patience=0.01) as progress:
        progress.step("driver")
        assert heard.wait(30)
        progress.step("log")
    assert told[-1] == "reading log …"
    assert told[0].startswith("still reading: ")

"""The demo, as `make demo` runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.node
@pytest.mark.usefixtures("machine_alone")
def test_every_step_comes_out_as_told_and_nothing_is_left(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    state = tmp_path_factory.mktemp("d", numbered=True) / "s"

    done = subprocess.run(
        [sys.executable, "-m", "localcluster.demo", "--no-keep", f"--state={state}"],
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every step came out as told" in done.stdout
    assert "✗" not in done.stdout
    assert not state.exists()

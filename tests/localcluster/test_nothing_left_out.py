"""A full run cannot leave a test out silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SKIPS_ITSELF = """
import pytest
def test_needs_what_is_missing():
    pytest.skip("no root here")
"""
SKIPS_AS_MODULE = """
import pytest
pytest.skip("no root here", allow_module_level=True)
"""
EXPECTED_TO_FAIL = """
import pytest
@pytest.mark.xfail(reason="known")
def test_known_fault():
    raise AssertionError
"""


def run(folder: Path, text: str, *, require_all: str) -> subprocess.CompletedProcess[str]:
    file = folder / "test_some.py"
    file.write_text(text)
    # The hooks under test come from the conftest of all tests, as a plugin.
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull, "-ra"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={folder}", str(file)],
        cwd=ROOT,
        env={**os.environ, "GPUDETOUR_REQUIRE_ALL": require_all},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("text", [SKIPS_ITSELF, SKIPS_AS_MODULE])
def test_a_skip_is_a_failure_where_all_is_required(tmp_path: Path, text: str) -> None:
    outcome = run(tmp_path, text, require_all="1")

    assert outcome.returncode != 0
    assert "GPUDETOUR_REQUIRE_ALL=1: Skipped: no root here" in outcome.stdout


@pytest.mark.parametrize("text", [SKIPS_ITSELF, SKIPS_AS_MODULE])
def test_a_skip_is_told_with_its_reason_otherwise(tmp_path: Path, text: str) -> None:
    outcome = run(tmp_path, text, require_all="")

    assert "1 skipped" in outcome.stdout
    assert "no root here" in outcome.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    outcome = run(tmp_path, EXPECTED_TO_FAIL, require_all="1")

    assert outcome.returncode == 0
    assert "1 xfailed" in outcome.stdout

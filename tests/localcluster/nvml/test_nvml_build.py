"""The library is compiled once, whoever asks, and a failing compiler is quoted."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localcluster.nvml.build import SONAME, build_library
from localcluster.parts.progress import PlainProgress, SilentProgress
from localcluster.settings import Settings
from localcluster.toolchain import ToolchainError


def settings_with(cache: Path, *, path: str | None = None) -> Settings:
    search_path = path or os.environ["PATH"]
    return Settings(cache=cache, state=cache, environment={"PATH": search_path})


def test_runs_at_the_same_time_get_one_library_compiled_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_with(tmp_path)
    progress = PlainProgress(sys.stdout)
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: build_library(settings, progress=progress), range(4)))
    assert len(set(built)) == 1
    assert built[0].name == SONAME
    assert capsys.readouterr().out.count("compile the NVML simulation ...") == 1
    assert sorted(path.name for path in built[0].parent.iterdir()) == [SONAME]


def test_a_failing_compiler_is_quoted_and_leaves_nothing(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    compiler = tools / "cc"
    compiler.write_text("#!/bin/sh\necho 'stdint.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    settings = settings_with(tmp_path / "cache", path=str(tools))
    with pytest.raises(ToolchainError, match=r"stdint\.h: No such file"):
        build_library(settings, progress=SilentProgress())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix == ".1"]

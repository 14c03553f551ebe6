"""The files of a release: whole, checked, the same each time; refused where they do not agree."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from image.build import Image
from image.configuration import reference_of
from image.platforms import this_processor
from image.product import Project, product_tree, read_project
from localcluster.image.product import CHECKOUT
from localcluster.rendering import FILES, Values, render
from localcluster.shipped import MANIFESTS
from release.changelog import ChangelogError, notes
from release.chart import chart_package
from release.dist import SUMS, write_release
from release.wheel import wheel, wheel_name

CHANGELOG = """# Changelog

## [2.0.0] - 2026-02-01

- new

## [1.0.0] - 2026-01-01

- old
"""


@pytest.fixture(scope="module")
def project() -> Project:
    return read_project(CHECKOUT)


@pytest.fixture(scope="module")
def files(
    helm: Path, project: Project, product_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """A whole release, with the image that the other tests use, in a folder that held another."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "gpudetour-0.0.1.tgz").write_text("of an older release")
    image = Image(
        project=project,
        processor=this_processor(),
        archive=product_image.read_bytes(),
        sbom=b"{}",
    )
    paths = write_release(image, folder, helm=helm)
    assert sorted(folder.iterdir()) == sorted(paths)
    return {path.name: path.read_bytes() for path in paths}


def test_a_release_is_whole(files: dict[str, bytes], project: Project) -> None:
    name, processor = f"gpudetour-{project.version}", this_processor().name

    assert files.keys() == {
        "SHA256SUMS",
        "alerts.yaml",
        "dashboard.json",
        f"{name}-{processor}.spdx.json",
        f"{name}-{processor}.tar",
        f"{name}-py3-none-any.whl",
        f"{name}.tgz",
        "release-notes.md",
        "requirements.lock",
        *(f"{variant}.yaml" for variant in FILES),
    }


def test_every_file_has_its_checksum(files: dict[str, bytes]) -> None:
    lines = [line.split("  ") for line in files[SUMS].decode().splitlines()]

    assert {name: digest for digest, name in lines} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items() if name != SUMS
    }


def test_everything_has_the_version_of_the_project(
    files: dict[str, bytes], project: Project
) -> None:
    assert files["release-notes.md"].decode().startswith(f"## [{project.version}] - ")
    for variant in FILES:
        images = set(re.findall(r"image: (gpudetour\S+)", files[f"{variant}.yaml"].decode()))
        assert images == {reference_of(project)}, variant
    head = yaml.safe_load((MANIFESTS / "chart" / "Chart.yaml").read_text())
    assert head["version"] == head["appVersion"] == project.version


def test_the_version_stands_in_one_place(project: Project) -> None:
    """Of what is written by hand; the chart has it from `make manifests`."""
    folders = (*project.packages, "image", "localcluster", "release", ".ci")
    hand = [path for folder in folders for path in (CHECKOUT / folder).rglob("*") if path.is_file()]
    version = re.compile(rf"gpudetour.*[-: =]{re.escape(project.version)}\b")
    naming = [
        path
        for path in (*hand, CHECKOUT / "Makefile")
        if path.suffix != ".pyc" and version.search(path.read_text(errors="replace"))
    ]

    assert naming == []


def test_the_chart_of_the_release_renders_to_the_same(
    files: dict[str, bytes], project: Project, helm: Path, tmp_path: Path
) -> None:
    package = tmp_path / "chart.tgz"
    package.write_bytes(files[f"gpudetour-{project.version}.tgz"])
    with tarfile.open(package) as archive:
        archive.extractall(tmp_path, filter="data")
    values: Values = {"flavor": "k3s"}
    options = ["--namespace=kube-system", "--skip-tests", "--values=-"]
    packed = subprocess.run(
        [helm, "template", "gpudetour", package, *options],
        input=json.dumps({"managedBy": "kubectl", **values}),
        capture_output=True,
        text=True,
        check=True,
    )

    def objects(text: str) -> list[object]:
        return [item for item in yaml.safe_load_all(text) if item]

    assert len(objects(packed.stdout)) > 20
    assert objects(packed.stdout) == objects(render(values, helm=helm))


def test_the_chart_is_packed_to_the_same_bytes(helm: Path) -> None:
    assert chart_package(helm=helm) == chart_package(helm=helm)


def test_the_wheel_installs_and_runs(project: Project, tmp_path: Path) -> None:
    product = product_tree(CHECKOUT, project)
    packed = tmp_path / wheel_name(project)
    packed.write_bytes(wheel(project, product))
    assert packed.read_bytes() == wheel(project, dict(sorted(product.items(), reverse=True)))
    target = tmp_path / "site"
    # pip compares every file with RECORD, and refuses metadata that it cannot read.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(packed)], check=True, timeout=240)

    asked = (
        "import cli, service.metrics as m; from importlib.metadata import requires;"
        "print(cli.__file__, m.release(), len(requires('gpudetour')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    where, version, needed = done.stdout.split()
    assert Path(where).is_relative_to(target)
    assert (version, int(needed)) == (project.version, len(project.dependencies))
    assert {path.name for path in (target / "bin").iterdir()} == set(project.scripts)


def test_the_wheel_brings_no_name_but_ours(project: Project, tmp_path: Path) -> None:
    packed = tmp_path / "x.whl"
    packed.write_bytes(wheel(project, product_tree(CHECKOUT, project)))
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        tops = {name.split("/")[0] for name in archive.namelist()}

    assert tops == {*project.packages, f"gpudetour-{project.version}.dist-info"}


def test_notes_are_those_of_the_newest_version_alone() -> None:
    assert notes(CHANGELOG, version="2.0.0") == "## [2.0.0] - 2026-02-01\n\n- new\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CHANGELOG, "begins with 2.0.0: write what changed below a heading `## \\[3.0.0\\]"),
        ("", "begins with nothing"),
        ("## 3.0.0\n", "begins with nothing"),
    ],
)
def test_a_version_without_notes_is_not_released(text: str, words: str) -> None:
    with pytest.raises(ChangelogError, match=words):
        notes(text, version="3.0.0")

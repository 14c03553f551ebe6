"""The same sources give the same image: elsewhere, under other circumstances, by the Dockerfile."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from image.build import Image
from image.debian import RELEASE, DebianError
from image.platforms import UnknownProcessor
from image.tarfiles import tar
from image.tree import Entry, File, Folder, Link, size
from image.wheels import SITE
from localcluster.files import write_atomically
from localcluster.image.product import CHECKOUT, make_image
from localcluster.parts.progress import PlainProgress, SilentProgress
from localcluster.settings import default_settings
from tests.image.opened import Opened, open_image

pytestmark = pytest.mark.timeout(900)
"""A build takes seconds, on a small and busy machine minutes."""

_SETTINGS = default_settings()
_DOCKERFILE = CHECKOUT / "image" / "Dockerfile"

ELSEWHERE = {
    "PYTHONHASHSEED": "4711",
    "TZ": "Pacific/Chatham",
    "LC_ALL": "C",
    "SOURCE_DATE_EPOCH": "4102444800",
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout as the Dockerfile's first stage gets it."""
    target = tmp_path_factory.mktemp("elsewhere") / "other name"
    ignored = (_DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line.removeprefix("**/") for line in ignored if line and not line.startswith("#")]
    patterns += [".*cache", ".hypothesis"]
    shutil.copytree(CHECKOUT, target, ignore=shutil.ignore_patterns(*patterns))
    return target


@pytest.fixture(scope="module")
def made(checkout: Path) -> Image:
    """The image of the copy, made here."""
    try:
        return make_image(_SETTINGS, progress=PlainProgress(sys.stderr), checkout=checkout)
    except (DebianError, UnknownProcessor) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def first(made: Image, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    path = tmp_path_factory.mktemp("first") / "image.tar"
    write_atomically(path, made.archive)
    return open_image(path)


@pytest.fixture(scope="module")
def cache(made: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the downloads alone: they are checked against signed lists and the lock, and all
    else is made anew.
    """
    del made
    folder = tmp_path_factory.mktemp("cache")
    shutil.copytree(_SETTINGS.cache / "images" / "downloads", folder / "images" / "downloads")
    return folder


def run_elsewhere(checkout: Path, cache: Path, *arguments: str) -> str:
    """Run a module of the copy in another process with another environment and umask."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=checkout,
        env={**os.environ, **ELSEWHERE, "PYTHONPATH": str(checkout), "GPUDETOUR_CACHE": str(cache)},
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_second_build_from_scratch_has_the_same_digest(
    first: Opened, checkout: Path, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = run_elsewhere(checkout, cache, "release", "image", f"--into={out}")

    archive = next(Path(line) for line in told.splitlines() if line.endswith(".tar"))
    second = open_image(archive)
    assert second.config == first.config
    assert second.digest == first.digest


def test_the_dockerfile_puts_the_same_files_into_its_layers(
    first: Opened, checkout: Path, cache: Path, tmp_path: Path
) -> None:
    (command,) = re.findall(r"^RUN python3 -m (.+)$", _DOCKERFILE.read_text(), re.MULTILINE)
    module, folder = shlex.split(command)
    target = tmp_path / "files"
    downloads = cache / "images" / "downloads"
    run_elsewhere(checkout, cache, module, str(target), f"--cache={downloads}")

    stages = re.findall(r"^COPY --from=files (\S+) /$", _DOCKERFILE.read_text(), re.MULTILINE)
    assert [Path(stage).relative_to(folder).name for stage in stages] == [
        entry["created_by"] for entry in first.config["history"]
    ]
    for stage, layer in zip(stages, first.layers, strict=True):
        tree = on_disk(target / Path(stage).relative_to(folder))
        assert size(tree) > 0
        assert tar(tree) == layer


def test_layers_that_did_not_change_are_not_packed_again(made: Image, checkout: Path) -> None:
    told = io.StringIO()
    progress = _Verbose(told)
    again = make_image(_SETTINGS, progress=progress, checkout=checkout)

    assert again.archive == made.archive
    assert "Debian's lists" in told.getvalue()
    assert "packing" not in told.getvalue()


class _Verbose(SilentProgress):
    """Keeps every detail that a task tells."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @contextmanager
    def task(self, what: str) -> Iterator[Callable[[str], None]]:
        del what
        yield lambda detail: print(detail, file=self._stream)


def on_disk(folder: Path) -> dict[str, Entry]:
    """The tree below a folder."""
    tree: dict[str, Entry] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            tree[name] = Link(str(path.readlink()))
        elif path.is_dir():
            tree[name] = Folder(path.stat().st_mode & 0o7777)
        else:
            tree[name] = File(path.read_bytes(), path.stat().st_mode & 0o7777)
    return tree


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", _DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    pairs = (line.partition(" ") for line in lines if line.strip())
    return [(word, rest.strip()) for word, _, rest in pairs]


def test_the_dockerfile_says_the_same_as_the_configuration(first: Opened) -> None:
    def said(word: str) -> str:
        *_, last = [rest for found, rest in instructions() if found == word]
        return last

    def pairs(word: str) -> dict[str, str]:
        found = (pair.partition("=") for pair in shlex.split(said(word)))
        return {name: value for name, _, value in found}

    run = first.config["config"]
    version = run["Labels"]["org.opencontainers.image.version"]
    assert pairs("ENV") == dict(value.split("=", 1) for value in run["Env"])
    labels = {name: value.replace("${VERSION}", version) for name, value in pairs("LABEL").items()}
    assert labels == run["Labels"]
    assert said("USER") == run["User"]
    assert said("WORKDIR") == run["WorkingDir"]
    assert json.loads(said("ENTRYPOINT")) == run["Entrypoint"]
    assert json.loads(said("CMD")) == run["Cmd"]


def test_the_dockerfile_begins_with_the_same_debian() -> None:
    froms = [rest for word, rest in instructions() if word == "FROM"]

    assert froms == ["${BUILDER} AS files", "scratch"]
    assert ("ARG", f"BUILDER=debian:{RELEASE}-slim") in instructions()


def test_the_dockerfile_copies_what_the_build_reads(checkout: Path) -> None:
    assert ("COPY", ". .") in instructions()
    for path in ("pyproject.toml", "LICENSE", "requirements/runtime.lock", "image/packages.txt"):
        assert (checkout / path).is_file(), path
    assert not (checkout / "tests").exists()
    assert not (checkout / ".git").exists()


def test_the_sbom_lists_exactly_what_is_in_the_image(made: Image, first: Opened) -> None:
    files = first.files()
    document = json.loads(made.sbom)
    packages = {package["name"]: package for package in document["packages"]}

    debian = {
        path.rpartition("/")[2] for path in files if path.startswith("var/lib/dpkg/status.d/")
    }
    infos = {
        re.sub(
            r"[-_.]+", "-", path.split("/")[-2].removesuffix(".dist-info").rpartition("-")[0]
        ).lower()
        for path in files
        if path.startswith(SITE) and path.endswith(".dist-info/METADATA")
    }
    image = f"gpudetour.local/gpudetour:{made.project.version}"
    assert packages.keys() == debian | infos | {image}

    lock = (CHECKOUT / "requirements" / "runtime.lock").read_text()
    for name in infos - {"gpudetour"}:
        (checksum,) = packages[name]["checksums"]
        assert f"sha256:{checksum['checksumValue']}" in lock
        assert f"{name}=={packages[name]['versionInfo']}" in lock.lower()
    assert packages["gpudetour"]["versionInfo"] == made.project.version
    identifiers = [package["SPDXID"] for package in document["packages"]]
    assert len(set(identifiers)) == len(identifiers)
    named = {r["relatedSpdxElement"] for r in document["relationships"]}
    assert named == set(identifiers)

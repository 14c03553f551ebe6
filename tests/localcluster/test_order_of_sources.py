"""Where a program is taken from when several places have it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster.parts.catalogue import ETCD, Part, UnknownPart, catalogue, select
from localcluster.parts.installed import cached_path, find
from localcluster.settings import Settings

TABLE = catalogue("amd64")
WRONG_VERSION = "3.4.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The three places, each an existing folder."""

    assets: Path
    path: Path
    settings: Settings

    def cached(self, part: Part) -> Path:
        """Where the cache keeps a part."""
        return cached_path(part, self.settings)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in ("assets", "path"):
        (tmp_path / name).mkdir()
    settings = Settings(
        cache=tmp_path / "cache",
        state=tmp_path / "state",
        parts_folder=tmp_path / "assets",
        environment={"PATH": os.pathsep.join(["", str(tmp_path / "path")])},
    )
    return Places(assets=tmp_path / "assets", path=tmp_path / "path", settings=settings)


def program(path: Path, says: str = "") -> Path:
    """An executable that prints one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_named_folder_wins_and_its_version_is_not_asked(places: Places) -> None:
    etcd = TABLE["etcd"]
    named = program(places.assets / "etcd", f"etcd Version: {WRONG_VERSION}")
    program(places.path / "etcd", f"etcd Version: {ETCD}")
    program(places.cached(etcd))

    assert find(etcd, places.settings) == named


def test_path_comes_before_the_cache(places: Places) -> None:
    etcd = TABLE["etcd"]
    on_path = program(places.path / "etcd", f"etcd Version: {ETCD}")
    program(places.cached(etcd))

    assert find(etcd, places.settings) == on_path


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(f"etcd Version: {WRONG_VERSION}", id="another version"),
        pytest.param(f"etcd Version: {ETCD}0", id="a version that only begins alike"),
        pytest.param("ctr: chess traffic reporter 2", id="an unrelated program"),
        pytest.param("", id="silence"),
    ],
)
def test_a_program_on_path_that_is_not_the_right_one_is_passed_over(
    places: Places, says: str
) -> None:
    etcd = TABLE["etcd"]
    program(places.path / "etcd", says)
    cached = program(places.cached(etcd))

    assert find(etcd, places.settings) == cached


def test_a_program_that_cannot_tell_its_version_is_never_taken_from_path(places: Places) -> None:
    program(places.path / "host-local", "CNI host-local plugin")

    assert find(TABLE["host-local"], places.settings) is None


def test_a_file_that_cannot_be_executed_is_passed_over(places: Places) -> None:
    etcd = TABLE["etcd"]
    program(places.assets / "etcd").chmod(0o644)
    cached = program(places.cached(etcd))

    assert find(etcd, places.settings) == cached


def test_versions_have_folders_of_their_own_in_the_cache(places: Places) -> None:
    folders = {places.cached(part).parent for part in TABLE.values()}

    assert len(folders) == len({part.group for part in TABLE.values()})
    assert all(folder.name.rpartition("-")[2][0].isdigit() for folder in folders)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPart, match=r"kube-router.*known are kube-apiserver"):
        select(TABLE, frozenset({"etcd", "kube-router"}))


def test_every_download_names_its_checksum_and_the_processor() -> None:
    publishers = ("https://dl.k8s.io/", "https://get.helm.sh/", "https://github.com/")
    for part in catalogue("arm64").values():
        if part.release is not None:
            assert part.release.url.startswith(publishers)
            assert "arm64" in part.release.url
            assert part.release.checksum_url != part.release.url

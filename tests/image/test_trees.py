"""Trees, the tar archives made of them, and OCI archives: pure, and equal for equal input."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.oci import Configuration, archive, layer_of
from image.tarfiles import compressed, tar
from image.tree import (
    Entry,
    File,
    Folder,
    Link,
    TreeError,
    merge,
    with_parents,
    without_empty_folders,
    write_tree,
)

TREE: dict[str, Entry] = {
    "usr/bin/tool": File(b"run", 0o755),
    "bin": Link("usr/bin"),
    "tmp": Folder(0o1777),
}
CONFIGURATION = Configuration(
    entrypoint=["/usr/bin/tool"],
    environment={"A": "1"},
    user="65532:65532",
    labels={"org.opencontainers.image.title": "tool"},
)


def read(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {entry.name: entry for entry in archive}


def test_two_sources_may_share_folders_and_equal_files_only() -> None:
    same = File(b"same")
    assert merge({"a": Folder(0o700), "a/b": same}, {"a": Folder(), "a/b": same}) == {
        "a": Folder(0o700),
        "a/b": same,
    }
    with pytest.raises(TreeError, match="/a/b comes from two sources"):
        merge({"a/b": File(b"one")}, {"a/b": File(b"other")})
    with pytest.raises(TreeError):
        merge({"a": Folder()}, {"a": Link("b")})


def test_empty_folders_go_unless_they_are_kept_with_their_mode() -> None:
    tree: dict[str, Entry] = {
        "a/b": Folder(),
        "tmp": Folder(0o1777),
        "c/d": File(b""),
        "c": Folder(0o700),
    }

    assert without_empty_folders(tree, keep=["tmp", "dev"]) == {
        "c": Folder(0o700),
        "c/d": File(b""),
        "dev": Folder(),
        "tmp": Folder(0o1777),
    }


def test_archives_name_no_time_and_no_owner_and_are_sorted() -> None:
    entries = read(tar(TREE))

    assert list(entries) == ["bin", "tmp", "usr", "usr/bin", "usr/bin/tool"]
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname) for e in entries.values()} == {
        (0, 0, 0, "", "")
    }
    assert entries["usr/bin/tool"].mode == 0o755
    assert entries["tmp"].mode == 0o1777
    assert entries["bin"].linkname == "usr/bin"


@given(st.permutations(sorted(TREE)))
def test_the_order_of_entries_changes_nothing(order: list[str]) -> None:
    assert tar({path: TREE[path] for path in order}) == tar(TREE)


def test_compressed_data_names_no_time() -> None:
    packed = compressed(b"data")

    assert packed[4:8] == bytes(4)
    assert gzip.decompress(packed) == b"data"


def test_written_trees_have_the_same_modes_and_times(tmp_path: Path) -> None:
    write_tree(TREE, tmp_path / "root")

    root = tmp_path / "root"
    assert (root / "bin/tool").read_bytes() == b"run"
    assert {path: (root / path).lstat().st_mtime for path in with_parents(TREE)} == dict.fromkeys(
        with_parents(TREE), 0
    )
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (root / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755


def blobs_of(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {
            entry.name: file.read()
            for entry in archive
            if entry.isfile() and (file := archive.extractfile(entry))
        }


def test_oci_archives_are_whole() -> None:
    layers = [layer_of(TREE, made_of="one"), layer_of({"etc/a": File(b"a")}, made_of="two")]
    files = blobs_of(archive("example.invalid/x:1.2", layers, CONFIGURATION, architecture="arm64"))

    def blob(descriptor: dict[str, Any]) -> bytes:
        content = files[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert len(content) == descriptor["size"]
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
        return content

    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads(files["index.json"])["manifests"]
    assert described["annotations"] == {
        "io.containerd.image.name": "example.invalid/x:1.2",
        "org.opencontainers.image.ref.name": "1.2",
    }
    manifest = json.loads(blob(described))
    config = json.loads(blob(manifest["config"]))
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Labels"] == {"org.opencontainers.image.title": "tool"}
    unpacked = [gzip.decompress(blob(layer)) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in unpacked
    ]
    assert unpacked == [tar(TREE), tar({"etc/a": File(b"a")})]
    (docker,) = json.loads(files["manifest.json"])
    assert docker["RepoTags"] == ["example.invalid/x:1.2"]
    assert [files[name] for name in docker["Layers"]] == [layer.blob for layer in layers]
    assert json.loads(files[docker["Config"]]) == config

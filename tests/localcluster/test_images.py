"""The images and the program in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from localcluster.image.archive import Image, archive
from localcluster.image.make import CUDA_IMAGE, image_archives
from localcluster.parts.progress import SilentProgress
from localcluster.settings import Settings, default_settings

IMAGE = Image(
    reference="example.invalid/tool:1",
    program=b"program",
    path="/bin/tool",
    links=["/bin/other"],
    entrypoint=["/bin/tool"],
    command=["run"],
    environment={"PATH": "/bin", "COLOUR": "blue"},
)


def members(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {
            entry.name: file.read()
            for entry in tar
            if (file := tar.extractfile(entry) if entry.isfile() else None)
        }


def layer_of(files: dict[str, bytes]) -> bytes:
    """The one layer of an archive, uncompressed."""
    (entry,) = json.loads(files["manifest.json"])
    (layer,) = entry["Layers"]
    return gzip.decompress(files[layer])


def test_an_archive_is_what_docker_saves() -> None:
    files = members(archive(IMAGE, architecture="arm64"))

    (entry,) = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == ["example.invalid/tool:1"]
    config = json.loads(files[entry["Config"]])
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert config["config"]["Env"] == ["PATH=/bin", "COLOUR=blue"]
    assert config["config"]["Entrypoint"] == ["/bin/tool"]
    assert config["config"]["Cmd"] == ["run"]
    digest = hashlib.sha256(layer_of(files)).hexdigest()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert members(layer_of(files)) == {"bin/tool": b"program"}


def test_equal_images_have_equal_archives() -> None:
    assert archive(IMAGE, architecture="amd64") == archive(IMAGE, architecture="amd64")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real program, taken out of the real image."""
    folder = tmp_path_factory.mktemp("images")
    settings = Settings(cache=folder, state=folder, environment=default_settings().environment)
    archives = image_archives(settings, progress=SilentProgress())
    assert image_archives(settings, progress=SilentProgress()) == archives
    files = members(next(a for a in archives if a.name == "cuda-1.tar").read_bytes())
    (entry,) = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == [CUDA_IMAGE]
    assert "NVIDIA_VISIBLE_DEVICES=all" in json.loads(files[entry["Config"]])["config"]["Env"]
    target = folder / "box"
    target.write_bytes(members(layer_of(files))["bin/box"])
    target.chmod(0o755)
    return target


def said(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"B": "2", "A": "1", "A_": "with = sign"},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def test_box_prints_its_environment_sorted(box: Path) -> None:
    assert said(box, "env").stdout == "A=1\nA_=with = sign\nB=2\n"


def test_box_alone_prints_its_environment_and_waits_for_sigterm(box: Path) -> None:
    with subprocess.Popen([box], env={"A": "1"}, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "A=1\n"
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_box_prints_files_and_folders(box: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("two\n")
    (tmp_path / "a").write_text("one\n")

    assert said(box, "ls", tmp_path).stdout == "a\nb\n"
    assert said(box, "cat", tmp_path / "a", tmp_path / "b").stdout == "one\ntwo\n"


def test_box_ends_as_it_is_told(box: Path) -> None:
    assert said(box, "sleep", "0.01").returncode == 0
    assert said(box, "fail").returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [("cat", "/no/such/file"), ("ls", "/no/such/folder"), ("sleep", "soon"), ("dance",), ("cat",)],
)
def test_box_complains(box: Path, arguments: tuple[str, ...]) -> None:
    outcome = said(box, *arguments)

    assert outcome.returncode != 0
    assert outcome.stderr.startswith("box: ")


def test_box_is_the_command_that_it_is_linked_as(box: Path, tmp_path: Path) -> None:
    (tmp_path / "env").symlink_to(box)

    assert said(tmp_path / "env").stdout.splitlines()[0] == "A=1"

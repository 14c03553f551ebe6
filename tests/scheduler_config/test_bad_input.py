"""What is refused before any cluster is asked, and what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.__main__ import main
from scheduling.configuration import Credentials, SetupError
from scheduling.files import existing, write

CREDENTIALS = Credentials(ca=b"ca", certificate=b"leaf", key=b"key")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--flavor", "talos", "--write", "x"), "leave --write out"),
        (("--flavor", "second", "--write", "x"), "has all it needs in its pod"),
        (("--flavor", "second", "--address", "10.0.0.1"), "has all it needs in its pod"),
        (("--flavor", "k3s", "--address", "extender.local"), "no IP address"),
        (("--flavor", "k3s", "--merge", "broken.yaml"), "broken.yaml cannot be read"),
        (("--flavor", "k3s", "--merge", "binary.yaml"), "binary.yaml cannot be read"),
        (("--flavor", "openshift"), "Invalid value for '--flavor'"),
        (("--flavor", "k3s", "--merge", "nowhere.yaml"), "does not exist"),
        ((), "Missing option '--flavor'"),
    ],
)
def test_bad_input_is_told_before_a_cluster_is_asked(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("{")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    done = CliRunner().invoke(
        main, ["--kubeconfig", str(tmp_path / "none"), "scheduler-config", *arguments]
    )

    assert done.exit_code in (1, 2)
    assert words in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SetupError, match="cannot write to"):
        write(tmp_path / "file", "kind: x\n", CREDENTIALS)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    """A folder where a file belongs stops the writing; what was begun is taken away."""
    (tmp_path / "tls.key").mkdir()

    with pytest.raises(SetupError, match="cannot write to"):
        write(tmp_path, "kind: x\n", CREDENTIALS)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]


def test_a_file_is_read_as_yaml(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("kind: KubeSchedulerConfiguration\n")

    assert existing(file) == {"kind": "KubeSchedulerConfiguration"}

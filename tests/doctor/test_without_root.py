"""What only root may read is said, and everything else is judged."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from doctor.diagnosis import Diagnosis
from doctor.findings import Outcome
from doctor.report import as_text
from tests.doctor.nodes import PLUGINS, TOOLKIT_CONFIG, NodeTree, k3s, kubeadm

_NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="gd-doctor") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def nobody() -> Iterator[None]:
    """For file access, be an ordinary user for a moment."""
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def seen_by_nobody(node: NodeTree) -> Diagnosis:
    node.diagnosis()  # imports everything while the interpreter's own files can be read
    with nobody():
        return node.diagnosis()


def outcomes(diagnosis: Diagnosis) -> dict[str, Outcome]:
    return {found.check.id: found.result.outcome for found in diagnosis.findings}


def test_closed_files_are_named_and_make_no_alarm(folder: Path) -> None:
    node = k3s(folder)
    (folder / "var/log/kern.log").chmod(0o600)
    (folder / PLUGINS).chmod(0o700)

    diagnosis = seen_by_nobody(node)

    assert not diagnosis.is_broken
    assert set(diagnosis.facts.host.unreadable) == {f"/{PLUGINS}", "/var/log/kern.log"}
    outcome = outcomes(diagnosis)
    assert outcome["kubelet-socket"] is Outcome.UNKNOWN
    assert outcome["gpu-xid"] is Outcome.UNKNOWN
    assert outcome["nvidia-handler"] is Outcome.OK
    assert f"/{PLUGINS}: permission denied" in as_text(diagnosis, verbose=False)


def test_a_runtime_whose_environment_is_closed_is_not_said_to_lack_runc(folder: Path) -> None:
    node = kubeadm(folder).remove("usr/bin/runc").program("opt/runc/bin/runc")
    node.write("proc/812/environ", "PATH=/opt/runc/bin\0")
    assert not node.diagnosis().is_broken
    (folder / "proc/812/environ").chmod(0o400)

    outcome = outcomes(seen_by_nobody(node))

    assert outcome["toolkit-runc"] is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "path",
    [
        "etc/containerd/config.toml",
        TOOLKIT_CONFIG,
        "etc/cdi/nvidia.yaml",
        "proc/modules",
        "dev",
        "etc",
        "usr",
        "proc",
        "sys",
        f"{PLUGINS}/kubelet_internal_checkpoint",
    ],
)
def test_any_closed_file_or_folder_makes_no_alarm(folder: Path, path: str) -> None:
    node = kubeadm(folder)
    (folder / path).chmod(0)

    diagnosis = seen_by_nobody(node)

    assert [found.check.id for found in diagnosis.of(Outcome.BROKEN)] == []
    assert diagnosis.facts.host.unreadable
    assert as_text(diagnosis, verbose=True)

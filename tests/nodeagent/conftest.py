"""What tests of the node agent share: a kubelet, and folders short enough for sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.kubelet import FakeKubelet


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path: sockets may have 107 bytes, and pytest's folders are long."""
    with tempfile.TemporaryDirectory(prefix="gd") as name:
        yield Path(name)


@pytest.fixture
def kubelet(short_folder: Path) -> Iterator[FakeKubelet]:
    """A running kubelet with its plugin folder."""
    with FakeKubelet(short_folder / "plugins") as kubelet:
        yield kubelet

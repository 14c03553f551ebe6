"""What the tests of the manifests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manifests.guarded import Guarded, guarded


@pytest.fixture(scope="session")
def guard(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None, helm: Path
) -> Iterator[Guarded]:
    """The shipped policies and rights on a control plane; no request of these tests is stored."""
    del control_plane_parts, helm
    with guarded(tmp_path_factory.mktemp("guard")) as site:
        yield site

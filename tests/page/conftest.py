"""A real browser, and a real extender that serves the page from a real control plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.chromium import Chromium, find_chromium
from localcluster.stack import Stack
from tests.cluster.sites import no_nodes


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    """One browser for all tests; each opens tabs of its own."""
    if find_chromium() is None:
        pytest.skip("chromium is not on this machine; on Debian: apt-get install chromium")
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """A cluster without nodes, whose extender serves the page."""
    del control_plane_parts
    with no_nodes(tmp_path_factory.mktemp("page")) as stack:
        stack.stop("extender")
        stack.start_extender({"--page": None})
        yield stack

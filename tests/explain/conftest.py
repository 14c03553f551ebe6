"""One control plane on which situations are set up one after the other, and taken away again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.stack import Stack
from tests.cluster.sites import no_nodes
from tests.explain.site import Site


@pytest.fixture(scope="session")
def explain_stack(
    tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None
) -> Iterator[Stack]:
    """gpudetour on a cluster without nodes."""
    del control_plane_parts
    with no_nodes(tmp_path_factory.mktemp("explain")) as stack:
        yield stack


@pytest.fixture
def site(explain_stack: Stack) -> Iterator[Site]:
    """An empty cluster for one situation, with everything working; it is empty again afterwards."""
    site = Site(explain_stack)
    yield site
    site.clear()

"""An extender that names several nodes is asked for scores as well."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import urllib3

from localcluster.stack import Stack
from tests.cluster.pods import Create, PodWhen, bound, gpu_pod

pytestmark = pytest.mark.controlplane


@pytest.fixture
def naming_sixteen(stack: Stack) -> Iterator[None]:
    """The extender names up to sixteen nodes during the test, and one again afterwards."""
    stack.stop("extender")
    stack.start_extender({"--shortlist": "16"})
    yield
    stack.stop("extender")
    stack.start_extender()


def prioritized(stack: Stack) -> float:
    """How often kube-scheduler has asked for scores."""
    with urllib3.PoolManager() as pool:
        text = pool.request("GET", f"{stack.side_url('extender')}/metrics").data.decode()
    found = re.search(
        r'^gpudetour_extender_duration_seconds_count\{verb="prioritize"\} (\S+)$',
        text,
        re.MULTILINE,
    )
    return float(found[1]) if found else 0.0


@pytest.mark.usefixtures("naming_sixteen")
def test_the_scheduler_asks_for_scores_and_the_pod_is_bound(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    before = prioritized(stack)

    create(gpu_pod("scored"))

    assert pod_when("scored", bound)
    # More than once where a bind was tried again.
    assert prioritized(stack) > before

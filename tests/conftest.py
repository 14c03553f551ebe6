"""Fixtures that every test may use: real clusters, and what happens where they cannot be had.

A test that needs a tier of the real cluster is skipped, with the reason, where the programs or root
are missing. With GPUDETOUR_REQUIRE_ALL=1 in the environment every skip is a failure, so that a full
run cannot leave anything out silently.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from image.debian import DebianError
from image.platforms import UnknownProcessor
from localcluster.cluster import LocalCluster
from localcluster.controlplane import PARTS as CONTROL_PLANE_PARTS
from localcluster.image.product import product_archive
from localcluster.node.machine import NodeError, check_machine, check_rights
from localcluster.node.real import PARTS as NODE_PARTS
from localcluster.node.slot import is_taken
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.parts.progress import PlainProgress
from localcluster.rendering import PART as HELM
from localcluster.settings import default_settings
from localcluster.simulated import PART as KWOK

REQUIRE_ALL = os.environ.get("GPUDETOUR_REQUIRE_ALL") == "1"

# How long an example takes says more of what else the machine does.
hypothesis_settings.register_profile(
    "gpudetour", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("gpudetour")


@pytest.fixture(scope="session")
def control_plane_parts() -> None:
    """Skip where a program of the control plane, or of simulated nodes, is missing."""
    _need_parts(*CONTROL_PLANE_PARTS, KWOK)


@pytest.fixture(scope="session")
def helm() -> Path:
    """The program; skip where the chart cannot be rendered. What is committed of it needs none."""
    return _need_parts(HELM)[HELM]


@pytest.fixture(scope="session")
def node_parts(control_plane_parts: None) -> None:
    """Skip where this machine cannot run the real node now."""
    del control_plane_parts
    _need_parts(*NODE_PARTS)
    try:
        check_rights()
        # The node of another run is waited for; another program's kubelet is not.
        if not is_taken():
            check_machine()
    except NodeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def control_plane(
    control_plane_parts: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """A control plane for the whole run; tests share it, so each uses names of its own."""
    del control_plane_parts
    with _cluster(tmp_path_factory, node=False) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def real_node(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane of its own with the real node `node1`, for the whole run."""
    del node_parts
    with _cluster(tmp_path_factory, node=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def product_image() -> Path:
    """The archive of gpudetour's own image, of the sources as they are; made once, then cached.

    Skip where this machine cannot make one.
    """
    try:
        return product_archive(default_settings(), progress=PlainProgress(sys.stderr))
    except (DebianError, UnknownProcessor) as error:
        pytest.skip(str(error))


@pytest.fixture
def machine_alone(node_parts: None) -> None:
    """For tests that start and end real nodes themselves; they run before `real_node` is there."""
    del node_parts


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that need the machine for themselves to the front, after any shuffling."""
    items.sort(key=lambda item: "machine_alone" not in getattr(item, "fixturenames", ()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With GPUDETOUR_REQUIRE_ALL=1, make a failure of each skipped test."""
    del item, call
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but GPUDETOUR_REQUIRE_ALL=1: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, but GPUDETOUR_REQUIRE_ALL=1: {_reason(report)}"
    return report


def _need_parts(*names: str) -> dict[str, Path]:
    # Building them takes minutes; that is not a test's business.
    settings, table = default_settings(), catalogue(architecture())
    found = {name: path for name in names if (path := find(table[name], settings)) is not None}
    if missing := [name for name in names if name not in found]:
        pytest.skip(
            f"not on this machine: {', '.join(missing)}; run `python -m localcluster parts`"
        )
    return found


def _cluster(factory: pytest.TempPathFactory, *, node: bool) -> LocalCluster:
    # Socket paths are short by law, and pytest's folders are long.
    state = factory.mktemp("c", numbered=True) / "s"
    return LocalCluster(state, node=node, progress=PlainProgress(sys.stderr))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    longrepr = report.longrepr
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)

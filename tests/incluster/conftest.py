"""The clusters of this folder, and their tests' order: what takes gpudetour away comes last."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.debian import DebianError
from image.platforms import UnknownProcessor
from localcluster.cluster import LocalCluster
from localcluster.node.enclosure import missing_programs
from localcluster.node.real import ENCLOSED_PARTS
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.parts.progress import PlainProgress
from localcluster.settings import default_settings
from localcluster.shipped import MANIFESTS
from tests.incluster.site import Site


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In each module of this folder, the removal comes last, whatever the shuffling said."""
    for folder in {item.path for item in items if item.path.parent == Path(__file__).parent}:
        places = [index for index, item in enumerate(items) if item.path == folder]
        ordered = sorted((items[index] for index in places), key=_is_removal)
        for index, item in zip(places, ordered, strict=True):
            items[index] = item


@pytest.fixture(scope="module")
def enclosed(node_parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster with pod network and Services."""
    del node_parts
    settings, table = default_settings(), catalogue(architecture())
    parts = [name for name in ENCLOSED_PARTS if find(table[name], settings) is None]
    if missing := [*parts, *missing_programs(settings.search_path)]:
        pytest.skip(
            f"not on this machine: {', '.join(missing)}; run `python -m localcluster parts`,"
            " and install util-linux, iproute2 and iptables"
        )
    state = tmp_path_factory.mktemp("i") / "s"
    with LocalCluster(state, enclosed=True, progress=PlainProgress(sys.stderr)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def second_scheduler(enclosed: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The cluster with manifests/second-scheduler.yaml applied, and all of it serving."""
    return _installed(enclosed, tmp_path_factory, MANIFESTS / "second-scheduler.yaml")


@pytest.fixture(scope="module")
def kubeadm(enclosed: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The cluster with manifests/kubeadm.yaml applied, and all of it serving."""
    return _installed(enclosed, tmp_path_factory, MANIFESTS / "kubeadm.yaml")


@pytest.fixture(scope="module")
def with_images(enclosed: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The cluster with every image that its install may need, and nothing of gpudetour else."""
    return _with_images(enclosed, tmp_path_factory, MANIFESTS / "second-scheduler.yaml")


def _installed(cluster: LocalCluster, factory: pytest.TempPathFactory, manifest: Path) -> Site:
    site = _with_images(cluster, factory, manifest)
    site.apply(manifest)
    return site


def _with_images(cluster: LocalCluster, factory: pytest.TempPathFactory, manifest: Path) -> Site:
    site = Site(cluster, factory.mktemp("images"))
    try:
        site.import_images(manifest)
    except (DebianError, UnknownProcessor) as error:
        pytest.skip(str(error))
    return site


def _is_removal(item: pytest.Item) -> bool:
    return "removal" in item.name

"""The real image in a real containerd: imported, and run as a manifest would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.configuration import reference_of
from image.contents import USER
from image.product import Project, read_project
from localcluster.image.product import CHECKOUT
from localcluster.node.machine import NodeError, check_rights
from localcluster.nvml.install import install
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.settings import default_settings
from tests.image.engine import PARTS, Engine, running_engine

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""

WHAT_CAN_BE_WRITTEN = """
import os
for folder, names, _ in os.walk("/", onerror=None):
    names[:] = [n for n in names if os.path.join(folder, n) not in ("/proc", "/sys", "/dev")]
    if os.access(folder, os.W_OK):
        print(folder)
"""


@pytest.fixture(scope="module")
def project() -> Project:
    return read_project(CHECKOUT)


@pytest.fixture(scope="module")
def engine(product_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    table, settings = catalogue(architecture()), default_settings()
    programs = {name: path for name in PARTS if (path := find(table[name], settings))}
    if missing := sorted(set(PARTS) - programs.keys()):
        pytest.skip(f"not here: {', '.join(missing)}; run `python -m localcluster parts`")
    try:
        check_rights()
    except NodeError as error:
        pytest.skip(str(error))
    with running_engine(tmp_path_factory.mktemp("e"), programs) as engine:
        imported = engine.ctr("images", "import", str(product_image))
        assert imported.returncode == 0, imported.stderr
        yield engine


@pytest.fixture(scope="module")
def image(project: Project) -> str:
    return reference_of(project)


def test_containerd_keeps_it_under_the_name_of_the_manifests(engine: Engine, image: str) -> None:
    assert engine.ctr("images", "ls", "--quiet").stdout.split() == [image]


@pytest.mark.parametrize("part", ["webhook", "extender", "nodeagent", "certs"])
def test_each_part_starts(engine: Engine, image: str, part: str) -> None:
    done = engine.run(image, "python", "-m", part, "--help")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: python -m {part}")
    assert not done.stderr


def test_the_command_is_what_runs_by_default(engine: Engine, image: str) -> None:
    done = engine.run(image)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: gpudetour")


def test_nobody_runs_as_root(engine: Engine, image: str) -> None:
    done = engine.run(image, "python", "-c", "import os; print(os.getuid(), os.getgid())")

    assert done.stdout.split() == [str(USER), str(USER)], done.stderr


def test_every_module_finds_what_it_imports(engine: Engine, image: str, project: Project) -> None:
    done = engine.run(image, "python", "-c", IMPORT_EVERYTHING, *project.packages)

    assert done.returncode == 0, done.stderr
    there = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        for package in ("extender", "nodeagent", "webhook")
        for path in (CHECKOUT / package).rglob("*.py")
        if not path.name.startswith("__")
    }
    assert there <= set(done.stdout.split())


def test_it_tells_its_version(engine: Engine, image: str, project: Project) -> None:
    asked = "from service.metrics import release; print(release())"

    assert engine.run(image, "python", "-c", asked).stdout.strip() == project.version


def test_kubeconfigs_are_read(engine: Engine, image: str, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    tmp_path.chmod(0o755)
    command = ["gpudetour", "nodes", "--kubeconfig=/k/kubeconfig"]
    done = engine.run(image, *command, mounts={tmp_path: "/k"})

    assert done.returncode != 0
    assert "127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_driver_of_the_node_is_loaded(engine: Engine, image: str, tmp_path: Path) -> None:
    install(tmp_path, "8x-h100", node="node1")
    tmp_path.chmod(0o755)
    command = ["python", "-m", "doctor.gather.nvml", "/host"]
    done = engine.run(image, *command, mounts={tmp_path: "/host"})

    assert json.loads(done.stdout) == {"code": 0, "text": "", "gpus": 8}, done.stderr


def test_there_is_nothing_to_write_to(engine: Engine, image: str) -> None:
    done = engine.run(image, "python", "-c", WHAT_CAN_BE_WRITTEN)

    assert done.returncode == 0, done.stderr
    # What containerd mounts is its own business; the root is read-only.
    assert set(done.stdout.split()) <= {"/run"}


def test_compiled_modules_are_used(engine: Engine, image: str) -> None:
    asked = (
        "import sys, webhook.review as r; print(r.__spec__.cached, sys.flags.dont_write_bytecode)"
    )
    done = engine.run(image, "python", "-v", "-c", asked)

    compiled = done.stdout.split()[0]
    assert f"# {compiled} matches" in done.stderr or f"code object from '{compiled}'" in done.stderr

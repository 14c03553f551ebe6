"""The page's containerd templates, rendered as K3s does, in the real containerd 2.

containerd 1.7 cannot be had here; what it reads, tables of version 2, containerd 2 takes as well.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from doctor.facts.host import Distribution
from doctor.findings import Outcome
from localcluster.node.machine import socket_answers
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.parts.progress import SilentProgress
from localcluster.processes import Processes
from localcluster.settings import default_settings
from localcluster.toolchain import go_program
from localcluster.waiting import until
from tests.doctor.nodes import k3s
from tests.k3s.box import CONTAINERD, HERE, Box, template_of_page

Object = dict[str, Any]
VERSIONS = (3, 2)
RUNTIME = "/srv/nvidia/nvidia-container-runtime"
#: What K3s writes by itself where it finds the runtime.
FOUND = {"nvidia": "/usr/bin/nvidia-container-runtime"}
BASE_ALONE = '{{ template "base" . }}\n'


@pytest.fixture(scope="module")
def containerd() -> Path:
    found = find(catalogue(architecture())["containerd"], default_settings())
    if found is None:
        pytest.skip("not on this machine: containerd; run `python -m localcluster parts`")
    return found


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K3s's way with templates, which are Go's."""
    settings = default_settings()
    program = tmp_path_factory.mktemp("renderer") / "render"
    go = go_program(settings, progress=SilentProgress())
    environment = {**settings.environment, "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    subprocess.run(
        [go, "build", "-o", program, HERE / "render.go"],
        env={**environment, "GOTOOLCHAIN": "local", "GOWORK": "off"},
        cwd=program.parent,
        check=True,
        timeout=240,
    )
    return program


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def dump(containerd: Path, config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(containerd), "--config", str(config), "config", "dump"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def runtimes(containerd: Path, config: Path) -> Object:
    """The handlers that containerd would have with a configuration."""
    done = dump(containerd, config)
    assert done.returncode == 0, done.stderr
    plugins = tomllib.loads(done.stdout)["plugins"]
    found: Object = plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_template_of_the_page_adds_the_runtime(
    version: int, box: Box, renderer: Path, containerd: Path
) -> None:
    config = box.render(renderer, version=version, template=template_of_page(version), found={})

    found = runtimes(containerd, config)

    assert found.keys() == {"runc", "nvidia"}
    assert found["nvidia"]["options"] == {"BinaryName": RUNTIME, "SystemdCgroup": True}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_template_is_needed_where_k3s_finds_the_runtime(
    version: int, box: Box, renderer: Path, containerd: Path
) -> None:
    config = box.render(renderer, version=version, template=BASE_ALONE, found=FOUND)

    assert runtimes(containerd, config)["nvidia"]["options"]["BinaryName"] == FOUND["nvidia"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_table_that_is_there_twice_is_refused(
    version: int, box: Box, renderer: Path, containerd: Path
) -> None:
    """Why the page says to name the runtime only where K3s does not find it."""
    template = template_of_page(version)
    config = box.render(renderer, version=version, template=template, found=FOUND)

    assert dump(containerd, config).returncode != 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_template_without_the_base_takes_away_what_k3s_writes(
    version: int, box: Box, renderer: Path, containerd: Path
) -> None:
    config = box.render(renderer, version=version, template="version = 3\n", found=FOUND)

    assert "nvidia" not in runtimes(containerd, config)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_doctor_finds_what_containerd_reads(version: int, box: Box, renderer: Path) -> None:
    node = k3s(box.root)
    box.render(renderer, version=version, template=template_of_page(version), found={})
    found = node.diagnosis()

    host = found.facts.host
    assert host.distribution is Distribution.K3S
    assert host.service == "k3s-agent"
    assert host.runtime.config_path == f"/{CONTAINERD}/config.toml"
    assert host.runtime.handlers["nvidia"].binary == RUNTIME
    assert not host.runtime.fault
    # The runtime that the template names is not on this box; that is what the doctor says.
    broken = [each.check.id for each in found.of(Outcome.BROKEN)]
    assert "handler-binary" in broken


def test_server_and_agent_on_one_box_are_one_unit(box: Box) -> None:
    node = k3s(box.root)
    (box.root / "etc/systemd/system/k3s-agent.service").unlink()
    node.write("etc/systemd/system/k3s.service", "[Service]\nEnvironmentFile=-/etc/default/k3s\n")

    assert node.diagnosis().facts.host.service == "k3s"


@pytest.fixture
def running(
    tmp_path_factory: pytest.TempPathFactory, containerd: Path, renderer: Path
) -> Iterator[Path]:
    """The real containerd, started as K3s starts it, with the page's template; its socket."""
    if os.geteuid() != 0:
        pytest.skip("containerd's CRI needs root")
    # Paths of sockets are short by law.
    box = Box(tmp_path_factory.mktemp("k"))
    config = box.render(renderer, version=3, template=template_of_page(3), found={})
    socket = box.at("/run/k3s/containerd/containerd.sock")
    socket.parent.mkdir(parents=True)
    settings = default_settings()
    processes = Processes(
        run=box.root / "pids", logs=box.root / "logs", environment=settings.environment
    )
    processes.start(
        "containerd",
        [
            *(containerd, "--config", config, "--address", socket),
            *("--state", box.at("/run/k3s/containerd")),
            *("--root", box.at("/var/lib/rancher/k3s/agent/containerd")),
        ],
    )
    try:
        processes.wait_ready("containerd", lambda: socket_answers(socket), timeout=120)
        yield socket
    finally:
        processes.stop_all()


@pytest.mark.node
def test_containerd_runs_with_it_and_offers_the_runtime(running: Path) -> None:
    """By the CRI, as kubelet asks: Status with `verbose` lists handlers and configuration."""
    with grpc.insecure_channel(f"unix://{running}") as channel:
        status: Callable[..., bytes] = channel.unary_unary("/runtime.v1.RuntimeService/Status")

        def answer() -> bytes | None:
            try:
                return status(b"\x08\x01", timeout=10)
            except grpc.RpcError:
                return None  # the CRI comes a moment after the socket

        told = until(answer, timeout=120, what="the CRI")

    assert b"RuntimeReady" in told
    assert RUNTIME.encode() in told

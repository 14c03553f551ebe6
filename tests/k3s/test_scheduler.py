"""The page's commands and config.yaml make the real kube-scheduler call the extender, as in K3s."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from doctor.facts.host import Distribution
from doctor.gather.places import PLACES
from localcluster.scheduler import serving_arguments
from localcluster.shipped import MANIFESTS
from localcluster.stack import Stack
from scheduling.flavors import FLAVORS
from tests.cluster.pods import bound
from tests.cluster.sites import one_node
from tests.docs.pages import ROOT, blocks
from tests.k3s.box import PAGE, Box, command_of_page, config_of_page, page_text

Object = dict[str, Any]
NODE = "one-box"
PODS = "/api/v1/namespaces/default/pods"


def pod_of_page() -> Object:
    (found,) = (
        pod
        for block in blocks()
        if block.page == PAGE and block.language == "yaml"
        for pod in [yaml.safe_load("\n".join(block.lines))]
        if pod.get("kind") == "Pod"
    )
    assert isinstance(found, dict)
    return found


def test_the_page_names_the_places_that_the_parts_know() -> None:
    text, places, flavor = page_text(), PLACES[Distribution.K3S], FLAVORS["k3s"]

    for path in (places.config, places.sockets[0], flavor.kubeconfig, flavor.folder):
        assert f"{path}" in text
    for template in places.templates:
        assert f"`{template.rpartition('/')[2]}`" in text
    for _, unit in places.services:
        assert f"`{unit}`" in text
    assert "/etc/rancher/k3s/config.yaml" in places.marks


def test_the_shipped_file_is_for_k3s() -> None:
    objects = [o for o in yaml.safe_load_all((MANIFESTS / "k3s.yaml").read_text()) if o]
    named = {(o["kind"], o["metadata"]["name"]): o for o in objects}

    service = named["Service", "gpudetour-extender"]
    assert service["spec"]["clusterIP"].startswith("10.43.")
    # K3s brings its own, which is the same.
    assert not [kind for kind, _ in named if kind == "RuntimeClass"]


class Server:
    """A K3s server's files, around the kube-scheduler of a real control plane."""

    def __init__(self, stack: Stack, box: Box) -> None:
        self.cluster = stack.cluster
        self.stack = stack
        self.box = box
        self._layout = stack.cluster._layout
        box.write("/etc/rancher/k3s/config.yaml", "write-kubeconfig-mode: '0600'\n")
        for path, kubeconfig in (
            ("/etc/rancher/k3s/k3s.yaml", self.cluster.admin_kubeconfig),
            (FLAVORS["k3s"].kubeconfig, self._layout.kubeconfig("kube-scheduler")),
        ):
            box.at(path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kubeconfig, box.at(path))

    def type_in(self, words: Sequence[str]) -> None:
        """Type a command of the page; what is not the page's is that the extender is no pod."""
        address = self.stack.extender_url.removeprefix("https://")
        program = (sys.executable, "-m", "cli.__main__", *words[1:], "--address", address)
        done = subprocess.run(
            self.box.inside(*program),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    def add_to_config(self, addition: Object) -> None:
        """Add what the page says to config.yaml."""
        config = self.box.at("/etc/rancher/k3s/config.yaml")
        config.write_text(config.read_text() + yaml.safe_dump(addition))

    def restart(self) -> None:
        """Start kube-scheduler with the arguments that K3s would give it."""
        # What K3s gives it by itself; with `config` it does not look at `kubeconfig` any more.
        own = {
            "kubeconfig": FLAVORS["k3s"].kubeconfig,
            "leader-elect": "false",
            "profiling": "false",
            "secure-port": str(self._layout.recall().ports.scheduler),
        }
        for argument in serving_arguments(self._layout, "kube-scheduler"):
            name, _, value = argument.removeprefix("--").partition("=")
            own[name] = value
        program = self.cluster.program("kube-scheduler")
        self.cluster.processes.stop("kube-scheduler")
        self.cluster.processes.start(
            "kube-scheduler", self.box.inside(program, *self.box.scheduler_arguments(own))
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Server]:
    del control_plane_parts
    if os.geteuid() != 0:
        pytest.skip("laying files over the machine's, for one program, needs root")
    folder = tmp_path_factory.mktemp("k3s")
    with one_node(folder, name=NODE) as stack:
        yield Server(stack, Box(folder / "root"))


@pytest.mark.node
@pytest.mark.timeout(600)
def test_the_page_leads_to_a_placed_pod(server: Server) -> None:
    server.type_in(command_of_page("gpudetour", "scheduler-config").words)
    server.add_to_config(config_of_page())
    server.restart()
    pod = pod_of_page()
    server.cluster.api.create(PODS, pod)

    found = server.cluster.wait_for(f"{PODS}/{pod['metadata']['name']}", bound, timeout=180)

    assert found["spec"]["runtimeClassName"] == "nvidia"
    assert "gpudetour.io/assigned" in found["metadata"]["annotations"]
    # The machine itself has seen nothing of it.
    assert not Path(FLAVORS["k3s"].folder).exists()
    written = server.box.at(FLAVORS["k3s"].folder) / "tls.key"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_the_argument_of_the_page_names_the_file_that_its_command_writes(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.write("/etc/rancher/k3s/config.yaml", yaml.safe_dump(config_of_page()))
    (argument,) = box.scheduler_arguments({})
    words = command_of_page("gpudetour", "scheduler-config").words
    folder = words[words.index("--write") + 1]

    assert argument == f"--config={folder}/kube-scheduler-configuration.yaml"

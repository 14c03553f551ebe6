"""What is printed starts the real kube-scheduler, and pods get their GPUs by it."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.__main__ import main
from localcluster.scheduler import serving_arguments
from localcluster.shipped import Variant, objects
from localcluster.stack import Stack
from scheduling.flavors import FILE
from tests.cluster.pods import bound, gpu_pod
from tests.cluster.sites import one_node

pytestmark = [pytest.mark.controlplane, pytest.mark.timeout(600)]

Object = dict[str, Any]
NODE = "gpu-node"
PODS = "/api/v1/namespaces/default/pods"


class Site:
    """A cluster with our parts and one node, whose scheduler the tests configure."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.cluster = stack.cluster
        self._layout = stack.cluster._layout
        self._numbers = itertools.count()

    @property
    def options(self) -> list[str]:
        """What differs from a server's usual places."""
        return [
            "--address",
            self.stack.extender_url.removeprefix("https://"),
            "--scheduler-kubeconfig",
            str(self._layout.kubeconfig("kube-scheduler")),
        ]

    def print(self, *arguments: str) -> Result:
        where = ["--kubeconfig", str(self.cluster.admin_kubeconfig)]
        return CliRunner().invoke(main, ["scheduler-config", *where, *arguments])

    def places_a_pod_with(self, file: Path) -> None:
        """Run kube-scheduler with a file and nothing else, and let a pod come and go."""
        port = self._layout.recall().ports.scheduler
        self.cluster.processes.stop("kube-scheduler")
        self.cluster.processes.start(
            "kube-scheduler",
            [
                self.cluster.program("kube-scheduler"),
                f"--config={file}",
                f"--secure-port={port}",
                *serving_arguments(self._layout, "kube-scheduler"),
            ],
        )
        name = f"pod-{next(self._numbers)}"
        self.cluster.api.create(PODS, gpu_pod(name))
        pod = self.cluster.wait_for(f"{PODS}/{name}", bound, timeout=120)
        # The extender's work; the scheduler alone would have left it out.
        assert "gpudetour.io/assigned" in pod["metadata"]["annotations"]
        self.cluster.api.delete(f"{PODS}/{name}", grace_seconds=0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Site]:
    del control_plane_parts
    folder = tmp_path_factory.mktemp("configured")
    with one_node(folder, name=NODE) as stack:
        yield Site(stack)


def test_the_address_is_that_of_the_service(site: Site) -> None:
    done = site.print("--flavor", "kubeadm")

    assert done.exit_code == 0, done.output
    configuration = yaml.safe_load(done.stdout)
    service = site.cluster.api.get(
        "/api/v1/namespaces/gpudetour-system/services/gpudetour-extender"
    )
    (extender,) = configuration["extenders"]
    assert extender["urlPrefix"] == f"https://{service['spec']['clusterIP']}:443"
    assert configuration["clientConnection"]["kubeconfig"] == "/etc/kubernetes/scheduler.conf"
    assert "kube-scheduler" in done.stderr
    assert "PRIVATE KEY" not in done.output


def test_files_are_written_for_their_owner_only_and_start_the_scheduler(
    site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "etc" / "gpudetour"
    done = site.print(
        *("--flavor", "kubeadm", "--write", str(folder), "--folder", str(folder)), *site.options
    )

    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys((FILE, "ca.crt", "tls.crt", "tls.key"), 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    site.places_a_pod_with(folder / FILE)


def test_one_file_with_the_certificates_inside_starts_the_scheduler(
    site: Site, tmp_path: Path
) -> None:
    done = site.print("--flavor", "talos", *site.options)

    assert done.exit_code == 0, done.output
    config = yaml.safe_load(done.stdout)["cluster"]["scheduler"]["config"]
    # As Talos does.
    whole = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        **config,
    }
    file = tmp_path / "scheduler-config.yaml"
    file.write_text(yaml.safe_dump(whole))
    site.places_a_pod_with(file)


def test_an_admins_own_configuration_starts_the_scheduler_twice_the_same(
    site: Site, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kubescheduler.config.k8s.io/v1",
                "kind": "KubeSchedulerConfiguration",
                "leaderElection": {"leaderElect": False},
                "percentageOfNodesToScore": 50,
                "profiles": [
                    {"schedulerName": "default-scheduler"},
                    {
                        "schedulerName": "dense",
                        "plugins": {"score": {"disabled": [{"name": "ImageLocality"}]}},
                    },
                ],
            }
        )
    )
    once = site.print("--flavor", "k3s", "--merge", str(own), *site.options)
    assert once.exit_code == 0, once.output
    assert "percentageOfNodesToScore is 50" in once.stderr
    file = tmp_path / "merged.yaml"
    file.write_text(once.stdout)

    twice = site.print("--flavor", "k3s", "--merge", str(file), *site.options)

    assert yaml.safe_load(twice.stdout) == yaml.safe_load(once.stdout)
    site.places_a_pod_with(file)


def test_an_address_that_is_a_name_is_refused(site: Site) -> None:
    done = site.print("--flavor", "k3s", "--address", "gpudetour-extender.gpudetour-system.svc")

    assert done.exit_code == 1
    assert "no IP address" in done.stderr
    assert done.stdout == ""


def test_without_the_secret_it_says_who_makes_it(site: Site) -> None:
    api = site.cluster.api
    path = "/api/v1/namespaces/gpudetour-system/secrets/gpudetour-scheduler-client"
    kept = api.get(path)
    api.delete(path)
    try:
        done = site.print("--flavor", "k3s")
    finally:
        metadata = {"name": kept["metadata"]["name"], "namespace": kept["metadata"]["namespace"]}
        api.create(path.rpartition("/")[0], {**kept, "metadata": metadata})

    assert done.exit_code == 1
    assert "gpudetour-certs" in done.stderr


def test_our_own_scheduler_needs_its_manifest(site: Site) -> None:
    done = site.print("--flavor", "second")

    assert done.exit_code == 1
    assert "second-scheduler.yaml" in done.stderr


def test_our_own_scheduler_keeps_what_its_manifest_says(site: Site) -> None:
    (shipped_map,) = (
        item
        for item in objects("ConfigMap", variant=Variant.SECOND_SCHEDULER)
        if item["metadata"]["name"] == "gpudetour-scheduler"
    )
    maps = "/api/v1/namespaces/gpudetour-system/configmaps"
    site.cluster.api.create(maps, shipped_map)
    try:
        done = site.print("--flavor", "second")
    finally:
        site.cluster.api.delete(f"{maps}/gpudetour-scheduler")

    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout) == yaml.safe_load(shipped_map["data"][FILE])


def test_somebody_without_rights_is_told_which(site: Site) -> None:
    nobody = site.cluster.kubeconfig_for("nobody-in-particular")
    done = CliRunner().invoke(
        main, ["scheduler-config", "--kubeconfig", str(nobody), "--flavor", "k3s"]
    )

    assert done.exit_code == 1
    assert "you may not get services" in done.stderr


def test_a_scheduler_that_lost_its_files_gets_them_again(site: Site, tmp_path: Path) -> None:
    """Writing again replaces what is there, whatever it is."""
    folder = tmp_path / "gpudetour"
    arguments = ("--flavor", "k3s", "--write", str(folder), *site.options)
    site.print(*arguments)
    (folder / "tls.key").write_text("not a key")

    again = site.print(*arguments)

    assert again.exit_code == 0
    assert "PRIVATE KEY" in (folder / "tls.key").read_text()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        (FILE, "ca.crt", "tls.crt", "tls.key")
    )

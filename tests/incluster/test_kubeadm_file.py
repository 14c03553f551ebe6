"""manifests/kubeadm.yaml and the image: the cluster's own kube-scheduler calls the extender by the
address of its Service, with the configuration that the command line prints.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from cli.__main__ import main
from localcluster.stack import EXTENDER
from localcluster.waiting import until
from tests.incluster.pods import untouched
from tests.incluster.site import PATIENCE, Site

pytestmark = [
    pytest.mark.node,
    pytest.mark.usefixtures("machine_alone"),
    # The image may have to be made first.
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def configured(kubeadm: Site) -> Site:
    """The cluster whose kube-scheduler was told of the extender."""
    printed = CliRunner().invoke(
        main,
        [
            "scheduler-config",
            "--flavor=kubeadm",
            f"--kubeconfig={kubeadm.cluster.admin_kubeconfig}",
        ],
    )
    assert printed.exit_code == 0, printed.output
    file = kubeadm.folder / "kube-scheduler.yaml"
    file.write_text(printed.stdout)
    kubeadm.cluster.restart_scheduler(file)
    return kubeadm


@pytest.fixture
def site(configured: Site) -> Iterator[Site]:
    """The cluster with everything of gpudetour serving and no pod of users."""
    configured.whole()
    yield configured
    configured.delete_pods()


def test_the_clusters_own_scheduler_places_pods_by_the_extender(site: Site) -> None:
    pod = site.place()

    assert pod["spec"]["schedulerName"] == "default-scheduler"
    assert len(site.devices(pod["metadata"]["name"])) == 1


def test_people_see_what_each_gpu_does_and_who_holds_it(site: Site) -> None:
    """By way of the API server, from the pods of the agents."""
    pod = site.place()["metadata"]["name"]
    asked = ["gpus", "-o", "json", f"--kubeconfig={site.cluster.admin_kubeconfig}"]

    def seen() -> Result | None:
        """What is told once every GPU has figures and the agent has told who holds which."""
        said = CliRunner().invoke(main, asked)
        if said.exit_code != 0 or "null" in said.stdout:
            return None
        return said if any(gpu["holders"] for gpu in json.loads(said.stdout)) else None

    told = until(seen, timeout=PATIENCE, what="figures of every GPU, and a holder")
    (held,) = (gpu for gpu in json.loads(told.stdout) if gpu["holders"])
    assert held["holders"] == [{"pod": f"default/{pod}", "share_bytes": 0}]
    assert held["device"] in site.devices(pod)
    assert 0 <= held["now"]["utilization"] <= 1
    assert held["now"]["memory_used_bytes"] <= held["memory_bytes"]
    assert told.stderr == ""


def test_the_extender_is_deleted_and_the_next_pod_is_placed(site: Site) -> None:
    before = site.place()

    site.delete_part(EXTENDER)

    assert len(site.devices(site.place()["metadata"]["name"])) == 1
    assert untouched(before, site.pod(before["metadata"]["name"]))


def test_the_removal_leaves_nothing_and_gpu_pods_go_on(site: Site) -> None:
    before = site.place()

    site.remove()

    site.nothing_remains()
    assert untouched(before, site.pod(before["metadata"]["name"]))

"""The chart in the hands of Helm on a real node: the release's own tests pass, a change of its
values leaves running GPU pods alone, and after it nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.rendering import CHART
from localcluster.stack import EXTENDER, NAMESPACE, WEBHOOK
from tests.device_nodes import make_device_node
from tests.incluster.pods import untouched
from tests.incluster.site import DRIVER, GPUS, Site
from tests.manifests.helm import Helm

pytestmark = [
    pytest.mark.node,
    pytest.mark.usefixtures("machine_alone"),
    # The image may have to be made first.
    pytest.mark.timeout(900),
]

_RELEASE = (
    *("gpudetour", str(CHART), "--set=scheduler.mode=second"),
    # With device nodes there too, as of a driver container with a /dev of its own.
    f"--set=nodeAgent.extraArgs={{--dev-root=/host{DRIVER}}}",
)


@pytest.fixture(scope="module")
def released(helm: Path, with_images: Site) -> Helm:
    """Helm, after the install of the release that the site has."""
    for name in ("nvidiactl", *(f"nvidia{minor}" for minor in range(GPUS))):
        make_device_node(with_images.cluster.node.root / DRIVER.relative_to("/"), name)
    release = Helm(program=helm, cluster=with_images.cluster, home=with_images.folder)
    release.run("install", *_RELEASE)
    return release


@pytest.fixture
def site(released: Helm, with_images: Site) -> Iterator[Site]:
    """The cluster with everything of gpudetour serving and no pod of users."""
    del released
    with_images.whole()
    yield with_images
    with_images.delete_pods()


def test_the_tests_of_the_release_pass(site: Site, released: Helm) -> None:
    # As the chart's notes advise: the first trials take a moment.
    works = ("wait", f"deployment/{WEBHOOK}", "--for=condition=AdmissionWorks", "--timeout=120s")
    site.cluster.kubectl("--namespace", NAMESPACE, *works)

    told = released.run("test", "gpudetour", "--timeout=180s")

    assert re.findall(r"Phase: +(\w+)", told) == ["Succeeded", "Succeeded"]


def test_a_changed_value_leaves_gpu_pods_alone(site: Site, released: Helm) -> None:
    before = site.place()

    released.run("upgrade", *_RELEASE, "--set=extender.page=true")
    site.whole()

    (replica, *_) = site.pods_of(EXTENDER)
    (extender,) = (each for each in replica["spec"]["containers"] if each["name"] == "extender")
    assert "--page" in extender["args"]
    assert untouched(before, site.pod(before["metadata"]["name"]))
    assert len(site.devices(site.place()["metadata"]["name"])) == 1


def test_the_removal_by_helm_leaves_nothing_and_gpu_pods_go_on(site: Site, released: Helm) -> None:
    before = site.place()

    released.run("uninstall", "gpudetour")

    site.nothing_remains()
    assert untouched(before, site.pod(before["metadata"]["name"]))

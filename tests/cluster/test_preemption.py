"""What kube-scheduler's own preemption does for a GPU pod of high priority when no GPU is free.

It does not see GPUs, and asks the extender whether its victims would free any.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.stack import EXTENDER, NAMESPACE, Stack
from localcluster.waiting import until
from tests.cluster.crowd import CPUS, GPUS, NODES, Site, crowded
from tests.cluster.pods import bound, gpu_pod, plain_pod, refused, refused_for

pytestmark = pytest.mark.controlplane


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """The extender as it is shipped: it evicts nobody."""
    del control_plane_parts
    with crowded(tmp_path_factory.mktemp("preemption")) as stack:
        yield stack


@pytest.fixture
def site(stack: Stack) -> Iterator[Site]:
    """The cluster without pods."""
    site = Site(stack)
    yield site
    site.clear()


def test_kube_scheduler_evicts_nobody_where_nothing_but_gpus_is_short(site: Site) -> None:
    names = site.fill({"low": GPUS}, *NODES)

    site.create(gpu_pod("important"), "high")

    waiting = site.when("important", refused_for("0/2 nodes are available: 2 all GPUs in use. "))
    assert refused(waiting).endswith("2 Preemption is not helpful for scheduling.")
    assert site.there() == {*names, "important"}


def test_kube_scheduler_evicts_nobody_for_cpu_where_gpus_would_not_come_free(site: Site) -> None:
    names = site.fill({"high": GPUS}, *NODES)
    for node in NODES:
        site.create(plain_pod(f"hog-{node}"), "low", on=node, cpu=CPUS - GPUS - 2)
        site.when(f"hog-{node}", bound)

    with site.counted('duration_seconds_count{verb="preempt"}'):
        site.create(gpu_pod("important"), "high", cpu=4)

    waiting = site.when("important", lambda pod: refused(pod) != "")
    assert refused(waiting).startswith("0/2 nodes are available: 2 Insufficient cpu. ")
    assert refused(waiting).endswith("preemption: no candidate node for preemption")
    assert "nominatedNodeName" not in waiting["status"]
    assert site.there() == {*names, "hog-left", "hog-right", "important"}


def test_kube_scheduler_makes_room_where_cpu_and_gpu_come_free_together(site: Site) -> None:
    names = site.fill({"high": GPUS}, "left")
    site.create(plain_pod("hog"), "low", on="left", cpu=CPUS - GPUS - 2)
    site.when("hog", bound)
    names += site.fill({"low": GPUS}, "right", cpu=CPUS // GPUS)

    site.create(gpu_pod("important"), "high", cpu=4)

    assert site.when("important", bound)["spec"]["nodeName"] == "right"
    (victim,) = {*names, "hog"} - site.there()
    assert victim.startswith("low-right-")


def test_kube_scheduler_waits_for_its_victims_and_touches_no_other_node(site: Site) -> None:
    names = site.fill({"high": GPUS - 1}, *NODES)
    for node, hog in (("left", "low"), ("right", "middle")):
        holder = gpu_pod(f"holder-{node}")
        holder["metadata"]["finalizers"] = ["example.org/slow"]
        site.create(holder, "low", on=node, cpu=10)
        site.create(plain_pod(f"hog-{node}"), hog, on=node, cpu=40)
        site.when(f"holder-{node}", bound)
        site.when(f"hog-{node}", bound)

    # It takes both pods of lower priority that are on the node.
    site.create(gpu_pod("important"), "high", cpu=CPUS - (GPUS - 1) - 2)
    site.when("holder-left", lambda pod: "deletionTimestamp" in pod["metadata"])
    until(lambda: "hog-left" not in site.there(), timeout=30, what="hog-left gone")
    for number in range(3):  # each time that one is turned away, kube-scheduler looks again
        site.create(plain_pod(f"late-{number}"), "low", cpu=CPUS)
        site.when(f"late-{number}", lambda pod: refused(pod) != "")

    stay = {*names, "holder-right", "hog-right", "important", *(f"late-{i}" for i in range(3))}
    assert site.there() == stay
    site.release("holder-left")
    assert site.when("important", bound)["spec"]["nodeName"] == "left"
    assert site.there() == stay


def test_without_the_setting_there_is_no_right_to_evict(site: Site) -> None:
    account = f"system:serviceaccount:{NAMESPACE}:{EXTENDER}"

    answer = site.stack.cluster.kubectl(
        "auth", "can-i", "create", "pods/eviction", f"--as={account}", check=False
    )

    assert answer.strip() == "no"

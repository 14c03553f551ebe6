"""The variant for clusters whose scheduler cannot be configured: two real kube-schedulers of ours,
each with its extender, beside the cluster's own one, which knows nothing of us.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kube.errors import Forbidden
from localcluster import shipped
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.nvml.install import install
from localcluster.secondscheduler import Replica
from localcluster.shipped import Variant
from localcluster.simulated import NodeTemplate
from localcluster.stack import EXTENDER, NAMESPACE, Stack
from localcluster.waiting import until
from tests.cluster.fence import epoch_in_force
from tests.cluster.pods import (
    Create,
    PodWhen,
    annotations_of,
    bound,
    gpu_pod,
    plain_pod,
    refused,
    serves_gpus,
)
from tests.cluster.second_scheduler import (
    CARDS,
    CRITICAL_PODS_NEED_QUOTA,
    GPU,
    LEASE,
    OURS,
    PLUGIN,
    TAKEOVER,
    bind_in,
    binder_of,
    devices_of,
    epoch_of,
    lease,
    on,
    serving,
    tell_plugin_path,
    wait_for_free,
)

pytestmark = pytest.mark.controlplane

OLD_PODS = "/api/v1/namespaces/default/pods"
OLD_POD = f"{OLD_PODS}/old"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """A cluster with its own scheduler as it comes, strict as managed ones are, and ours beside it.

    One pod that was there before us has a GPU of the plugin.
    """
    del control_plane_parts
    folder = tmp_path_factory.mktemp("second")
    admission = folder / "admission.json"
    admission.write_text(json.dumps(CRITICAL_PODS_NEED_QUOTA))
    options = ControlPlaneOptions(apiserver_args=[f"--admission-control-config-file={admission}"])
    with LocalCluster(folder / "cluster", options=options) as cluster:
        capacity = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: "4"}
        cluster.create_simulated_nodes([PLUGIN], NodeTemplate(capacity=capacity))
        cluster.create_simulated_nodes([CARDS])
        cluster.api.create(OLD_PODS, gpu_pod("old"))
        old = cluster.wait_for(OLD_POD, bound)
        assert old["spec"]["nodeName"] == PLUGIN
        assert "labels" not in old["metadata"]

        stack = Stack(cluster, variant=Variant.SECOND_SCHEDULER)
        stack.install()
        tell_plugin_path(stack, in_use={"GPU-old": old["metadata"]["uid"]})
        install(folder / "driver", "8x-h100", node=CARDS)
        stack.start_agent(CARDS, folder / "driver")
        cluster.wait_for(f"/api/v1/nodes/{CARDS}", serves_gpus, timeout=60)
        yield stack


@pytest.fixture(scope="module")
def pods(stack: Stack) -> dict[str, Replica]:
    """Two pods of the second scheduler, by hostname."""
    return {name: Replica(stack, name) for name in ("pod-a", "pod-b")}


@pytest.fixture
def replicas(pods: dict[str, Replica]) -> dict[str, Replica]:
    """The two, running, whatever the test before made of them; one serves, the other could."""
    for replica in pods.values():
        replica.signal(signal.SIGCONT)
        replica.start()
    serving(pods)
    until(
        lambda: all(replica.stands_by() for replica in pods.values()),
        timeout=TAKEOVER,
        what="both pods up",
    )
    return pods


@pytest.mark.usefixtures("replicas")
def test_gpu_pods_are_placed_by_ours_and_all_others_by_the_clusters_own_scheduler(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    create(gpu_pod("with"))
    create(plain_pod("without"))
    mine = gpu_pod("of-another-scheduler")
    mine["spec"]["schedulerName"] = "volcano"
    create(mine)

    with_gpu, without = pod_when("with", bound), pod_when("without", bound)

    assert with_gpu["spec"]["schedulerName"] == OURS
    assert binder_of(stack, with_gpu) == OURS
    assert devices_of(with_gpu) or with_gpu["spec"]["nodeName"] == PLUGIN
    assert without["spec"]["schedulerName"] == "default-scheduler"
    assert binder_of(stack, without) == "default-scheduler"
    other = pod_when("of-another-scheduler", bool)
    assert other["spec"]["schedulerName"] == "volcano"
    assert not bound(other)


def test_the_api_server_takes_the_workloads(stack: Stack) -> None:
    """All else of the variant is installed for real."""
    workloads = list(shipped.objects("Deployment", "DaemonSet", "Job", variant=stack.variant))
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": workloads})

    said = stack.cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=objects)

    assert f"deployment.apps/{EXTENDER} created (server dry run)" in said


def test_critical_pods_of_ours_are_let_in_where_the_cluster_limits_them(stack: Stack) -> None:
    (deployment,) = (
        item
        for item in shipped.objects("Deployment", variant=stack.variant)
        if item["metadata"]["name"] == EXTENDER
    )
    pod = {"metadata": {"generateName": "x-"}, "spec": deployment["spec"]["template"]["spec"]}
    quota = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas/gpudetour-critical-pods"
    stack.cluster.wait_for(quota, lambda found: "used" in found.get("status", {}))

    assert stack.cluster.api.create(f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", pod)
    elsewhere = {**pod, "spec": {**pod["spec"], "serviceAccountName": "default"}}
    with pytest.raises(ApiError, match="insufficient quota to match these scopes"):
        stack.cluster.api.create("/api/v1/namespaces/default/pods?dryRun=All", elsewhere)


def test_the_schedulers_have_the_rights_that_they_use(
    stack: Stack, replicas: dict[str, Replica]
) -> None:
    for replica in replicas.values():
        for name in (replica.scheduler, replica.extender):
            # As the authorizer says it; the fence's refusals are no lack of rights.
            said = stack.cluster.processes.log(name).read_text().lower()
            assert "forbidden: user" not in said


@pytest.mark.usefixtures("replicas")
def test_a_pod_without_gpus_may_choose_our_scheduler(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    pod = plain_pod("by-ours")
    pod["spec"]["schedulerName"] = OURS
    create(pod)

    stored = pod_when("by-ours", bound)

    assert binder_of(stack, stored) == OURS
    assert "gpudetour.io/assigned" not in annotations_of(stored)


def test_when_the_leading_pod_is_killed_the_other_takes_over_with_its_own_extender(
    stack: Stack, replicas: dict[str, Replica], create: Create, pod_when: PodWhen
) -> None:
    for number in range(3):
        create(on(CARDS, gpu_pod(f"before-{number}")))
    before = [pod_when(f"before-{number}", bound) for number in range(3)]
    first = serving(replicas)
    old_epoch = lease(stack)["leaseTransitions"]
    replicas[first].signal(signal.SIGKILL)
    for number in range(5):
        create(on(CARDS, gpu_pod(f"after-{number}")))

    second = serving(replicas, other_than=first)
    pods = f"/api/v1/namespaces/{before[0]['metadata']['namespace']}/pods"
    stack.cluster.wait_for(pods, lambda found: all(map(bound, found["items"])), timeout=30)

    after = [pod_when(f"after-{number}", bound) for number in range(5)]
    assert lease(stack)["holderIdentity"].startswith(f"{second}_")
    assert len({device for pod in (*before, *after) for device in devices_of(pod)}) == 8
    assert {epoch_of(pod) for pod in before} == {old_epoch}
    (new_epoch,) = {epoch_of(pod) for pod in after}
    assert new_epoch == lease(stack)["leaseTransitions"] > old_epoch


def test_a_leader_that_was_frozen_can_bind_nothing_when_it_wakes(
    stack: Stack, replicas: dict[str, Replica], create: Create, pod_when: PodWhen
) -> None:
    first = serving(replicas)
    old_epoch = lease(stack)["leaseTransitions"]
    replicas[first].signal(signal.SIGSTOP)
    second = serving(replicas, other_than=first)
    waiting = gpu_pod("waiting")
    waiting["spec"]["schedulerName"] = "volcano"
    pod = create(waiting)

    with pytest.raises(Forbidden, match="no longer the leader"):
        bind_in(stack, old_epoch, pod)
    replicas[first].signal(signal.SIGCONT)
    until(
        lambda: not stack.cluster.processes.alive(replicas[first].scheduler),
        timeout=TAKEOVER,
        what="the end of the scheduler that lost its Lease",
    )

    assert not replicas[first].serves()
    assert serving(replicas, other_than=first) == second
    create(gpu_pod("next"))
    assert pod_when("next", bound)


def test_an_extender_started_anew_beside_the_same_scheduler_leads_in_another_epoch(
    stack: Stack, replicas: dict[str, Replica], create: Create, pod_when: PodWhen
) -> None:
    first = serving(replicas)
    processes = stack.cluster.processes
    scheduler = processes.pid(replicas[first].scheduler)
    before = lease(stack)
    processes.stop(replicas[first].extender)

    replicas[first].start_extender()

    assert serving(replicas) == first
    after = lease(stack)
    assert after["holderIdentity"] == before["holderIdentity"]
    assert after["leaseTransitions"] == before["leaseTransitions"] + 1
    renewed = after["renewTime"]
    until(lambda: lease(stack)["renewTime"] != renewed, timeout=10, what="a renewal after that")
    assert lease(stack)["leaseTransitions"] == after["leaseTransitions"]
    assert processes.pid(replicas[first].scheduler) == scheduler
    foreign = gpu_pod("foreign")
    foreign["spec"]["schedulerName"] = "volcano"
    with pytest.raises(Forbidden, match="no longer the leader"):
        bind_in(stack, before["leaseTransitions"], create(foreign))
    create(gpu_pod("next"))
    assert binder_of(stack, pod_when("next", bound)) == OURS


def test_an_extender_that_dies_while_it_binds_gives_no_gpu_away_twice(
    stack: Stack, namespace: str, replicas: dict[str, Replica], create: Create
) -> None:
    """Each life of the container has an epoch of its own, and the pods of those before it."""
    leading = replicas[serving(replicas)]
    names = {f"pod-{number:02}" for number in range(20)}
    for name in names:
        create(on(CARDS, gpu_pod(name)))
    pods = f"/api/v1/namespaces/{namespace}/pods"
    epochs: dict[str, int] = {}
    deaths = iter(range(4))

    def all_were_bound() -> bool:
        holding = [pod for pod in stack.cluster.api.get(pods)["items"] if bound(pod)]
        devices = [device for pod in holding for device in devices_of(pod)]
        assert len(devices) == len(set(devices)) == len(holding)
        fresh = {p["metadata"]["name"]: epoch_of(p) for p in holding} | epochs
        new, left = fresh.keys() - epochs.keys(), names - fresh.keys()
        if new and left and next(deaths, None) is not None:
            leading.kill_extender()  # others of this burst are on their way
            leading.start_extender()
        epochs.update(fresh)
        for pod in holding:
            stack.cluster.api.delete(f"{pods}/{pod['metadata']['name']}", grace_seconds=0)
        return epochs.keys() == names

    until(all_were_bound, timeout=240, what="every pod bound once", interval=0.01)

    assert len(set(epochs.values())) > 1


def test_a_lease_that_was_deleted_while_nobody_ran_brings_no_epoch_back(
    stack: Stack, replicas: dict[str, Replica], create: Create, pod_when: PodWhen
) -> None:
    create(on(CARDS, gpu_pod("before")))
    before = epoch_of(pod_when("before", bound))
    for replica in replicas.values():
        replica.stop()
    stack.cluster.api.delete(LEASE)

    for replica in replicas.values():
        replica.start()
    serving(replicas)

    create(on(CARDS, gpu_pod("after")))
    assert epoch_of(pod_when("after", bound)) > before


def test_a_scheduler_started_anew_in_the_same_pod_begins_another_epoch(
    stack: Stack, replicas: dict[str, Replica], create: Create, pod_when: PodWhen
) -> None:
    first = serving(replicas)
    (other,) = replicas.keys() - {first}
    replicas[other].stop()
    api = stack.cluster.api
    before = epoch_in_force(api)
    stack.cluster.processes.stop(replicas[first].scheduler)

    replicas[first].start_scheduler()

    # The extender is the same and knows what it gave out: it may bind until it sees the new holder.
    until(lambda: epoch_in_force(api) > before, timeout=TAKEOVER, what="another epoch")
    assert serving(replicas) == first
    create(gpu_pod("next"))
    assert epoch_of(pod_when("next", bound)) > before


def test_a_pod_that_is_stopped_in_order_is_followed_within_seconds(
    stack: Stack, replicas: dict[str, Replica], create: Create, pod_when: PodWhen
) -> None:
    first = serving(replicas)
    replicas[first].stop()
    stopped = time.monotonic()
    create(gpu_pod("next"))

    pod_when("next", bound)

    # 3 s in good health; the tests' machine may be busy. The Lease itself runs for 12 s.
    assert time.monotonic() - stopped < 10
    assert stack.cluster.processes.alive(replicas[serving(replicas)].scheduler)


def test_gpus_that_kubelets_plugin_gave_to_pods_of_other_schedulers_are_counted(
    stack: Stack, namespace: str, replicas: dict[str, Replica], create: Create
) -> None:
    """Of four GPUs one is a pod's that is older than us, one a pod's of another scheduler."""
    api = stack.cluster.api
    foreign = gpu_pod("foreign")
    foreign["spec"]["schedulerName"] = "volcano"
    create(foreign)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    target = {"apiVersion": "v1", "kind": "Node", "name": PLUGIN}
    binding = {"metadata": {"name": "foreign"}, "target": target}
    api.create(f"{pods}/foreign/binding", binding)
    wait_for_free(replicas[serving(replicas)], 8 + 4 - 2)
    for number in range(3):
        create(on(PLUGIN, gpu_pod(f"ours-{number}")))

    def two_bound_and_one_refused() -> bool:
        ours = [api.get(f"{pods}/ours-{number}") for number in range(3)]
        told = [refused(pod) for pod in ours if not bound(pod)]
        return len(told) == 1 and "1 all GPUs in use" in told[0]

    until(two_bound_and_one_refused, timeout=30, what="two bound and one told why it waits")
    (last,) = (p for p in api.get(pods)["items"] if not bound(p))

    api.delete(f"{pods}/foreign", grace_seconds=0)

    def bound_now() -> bool:
        # The scheduler may have asked before the extender heard of it. An agent changes its Node
        # when kubelet has taken the GPU back, and the scheduler asks again.
        tell_plugin_path(stack, in_use={"GPU-old": api.get(OLD_POD)["metadata"]["uid"]})
        return bound(api.get(f"{pods}/{last['metadata']['name']}"))

    until(bound_now, timeout=30, what="the last one bound", interval=1.0)
    everywhere = api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={PLUGIN}")["items"]
    assert len([pod for pod in everywhere if GPU in str(pod["spec"]["containers"])]) == 4


@pytest.mark.usefixtures("replicas")
def test_the_clusters_own_scheduler_counts_our_pods_on_the_plugins_nodes(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    """Where a namespace is left out of the webhook, pods stay with it; both see each other."""
    for number in range(3):
        create(on(PLUGIN, gpu_pod(f"ours-{number}")))
    for number in range(3):
        pod_when(f"ours-{number}", bound)
    system = "/api/v1/namespaces/kube-system/pods"
    pod = on(PLUGIN, gpu_pod("system"))
    stack.cluster.api.create(system, pod)
    try:
        waiting = stack.cluster.wait_for(f"{system}/system", lambda found: refused(found) != "")

        assert waiting["spec"]["schedulerName"] == "default-scheduler"
        assert f"Insufficient {GPU}" in refused(waiting)
    finally:
        with suppress(ApiError):
            stack.cluster.api.delete(f"{system}/system", grace_seconds=0)

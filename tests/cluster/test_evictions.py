"""The extender with `--preemption=evict`, where a GPU pod of high priority finds no GPU free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kube.client import Client
from kube.connection import connect
from kube.errors import Forbidden
from localcluster.stack import EXTENDER, NAMESPACE, Stack
from localcluster.waiting import until
from tests.cluster.crowd import GPUS, NODES, PODS, Site, crowded
from tests.cluster.pods import bound, gpu_pod, refused
from tests.manifests.choices import EVICTING, option_of, rights_to_evict

pytestmark = pytest.mark.controlplane

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, control_plane_parts: None) -> Iterator[Stack]:
    """The extender may evict, and has the right to."""
    del control_plane_parts
    with crowded(tmp_path_factory.mktemp("evictions")) as stack:
        yield stack


@pytest.fixture(scope="module")
def option(stack: Stack, helm: Path) -> dict[str, str]:
    """What preemption adds to what is shipped: rights, which are granted, and an option."""
    del helm
    stack.cluster.apply(rights_to_evict())
    name, value = option_of(EVICTING, EXTENDER).split("=")
    restart(stack, {name: value})
    return {name: value}


def restart(stack: Stack, option: dict[str, str]) -> None:
    """Let another extender lead."""
    stack.stop("extender")
    stack.start_extender(option)


@pytest.fixture
def site(stack: Stack, option: dict[str, str]) -> Iterator[Site]:
    """The cluster without pods, the extender switched on."""
    del option
    site = Site(stack)
    yield site
    site.clear()


def test_one_gpu_costs_one_pod_of_the_lowest_priority(site: Site) -> None:
    names = site.fill({"middle": GPUS}, "left")
    names += site.fill({"low": 1, "middle": GPUS - 1}, "right")

    site.create(gpu_pod("important"), "high")

    assert site.when("important", bound)["spec"]["nodeName"] == "right"
    assert site.there() == {*names, "important"} - {"low-right-0"}
    until(lambda: "low-right-0" in site.told("Preempted"), timeout=20, what="told")
    until(lambda: "important" in site.told("Preempting"), timeout=20, what="told")


def test_two_gpus_cost_two_pods_of_one_node(site: Site) -> None:
    names = site.fill({"low": GPUS}, *NODES)

    site.create(gpu_pod("important", gpus=2), "high")

    node = site.when("important", bound)["spec"]["nodeName"]
    victims = set(names) - site.there()
    assert len(victims) == 2
    assert {name.split("-")[1] for name in victims} == {node}


def test_pods_of_equal_priority_stay(site: Site) -> None:
    names = site.fill({"high": GPUS}, *NODES)

    with site.considered("nobody"):
        site.create(gpu_pod("important"), "high")

    assert site.there() == {*names, "important"}


def test_nobody_goes_for_a_pod_that_would_not_fit_even_then(site: Site) -> None:
    names = site.fill({"high": 1, "low": GPUS - 1}, *NODES)

    with site.considered("nobody"):
        site.create(gpu_pod("important", gpus=GPUS), "high")

    assert site.there() == {*names, "important"}


def test_a_disruption_budget_saves_its_pods_and_the_event_says_so(site: Site) -> None:
    names = site.fill({"low": GPUS}, *NODES)
    protect(site, at_least=2 * GPUS, healthy=2 * GPUS)

    with site.considered("refused"):
        site.create(gpu_pod("important"), "high")

    assert site.there() == {*names, "important"}
    until(lambda: "important" in site.told("PreemptionRefused"), timeout=20, what="told")


def test_nobody_goes_where_a_budget_allows_one_of_the_two_that_it_takes(site: Site) -> None:
    names = site.fill({"low": GPUS}, *NODES)
    protect(site, at_least=2 * GPUS - 1, healthy=2 * GPUS)

    with site.considered("refused"):
        site.create(gpu_pod("important", gpus=2), "high")

    assert site.there() == {*names, "important"}


def test_others_go_where_a_budget_saves_the_first_choice(site: Site) -> None:
    names = site.fill({"low": 2, "middle": GPUS - 2}, "left")
    names += site.fill({"middle": GPUS}, "right")
    protect(site, at_least=2, healthy=2)

    site.create(gpu_pod("important"), "high")

    site.when("important", bound)
    (victim,) = set(names) - site.there()
    assert victim.startswith("middle-")


def test_what_comes_free_is_kept_and_nobody_else_goes_meanwhile(site: Site) -> None:
    names = evicted_slowly(site)

    for number in range(3):  # each of them makes kube-scheduler ask again for the one before
        with site.counted('duration_seconds_count{verb="filter"}'):
            site.create(gpu_pod(f"late-{number}"), "low")
    late = {f"late-{number}" for number in range(3)}
    for name in late:
        site.when(name, lambda pod: refused(pod) != "")
    assert site.there() == {*names, *late, "important"}

    site.release("slow")

    site.when("important", bound)
    assert site.there() == {*names, *late, "important"}
    assert not any(bound(site.api.get(f"{PODS}/{name}")) for name in late)


def test_a_leader_that_takes_over_evicts_nobody_else(site: Site, option: dict[str, str]) -> None:
    names = evicted_slowly(site)

    restart(site.stack, option)
    with site.considered("waiting"):
        # That it is turned away makes kube-scheduler ask again for the one before.
        site.create(gpu_pod("late"), "low")

    assert site.there() == {*names, "important", "late"}
    site.release("slow")
    site.when("important", bound)


def test_the_api_server_refuses_evictions_of_a_leader_of_the_past(site: Site) -> None:
    (name, *_) = site.fill({"low": 1}, "left")

    def evict(epoch: int) -> None:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {
                "name": name,
                "labels": {"gpudetour.io/gpu": "true"},
                "annotations": {
                    "gpudetour.io/assigned": f'{{"v":1,"epoch":{epoch},"containers":{{}}}}'
                },
            },
        }
        extender.create(f"{PODS}/{name}/eviction", eviction, params={"dryRun": "All"})

    cluster = site.stack.cluster
    extender = Client(connect(str(cluster.service_account_kubeconfig(NAMESPACE, EXTENDER))))
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{EXTENDER}"
    epoch = int(site.api.get(lease)["spec"]["leaseTransitions"])

    evict(epoch)
    with pytest.raises(Forbidden, match="no longer the leader"):
        evict(epoch - 1)
    extender.close()


def evicted_slowly(site: Site) -> list[str]:
    """Let the pod `slow` be evicted for the pod `important`, and not go; return all others."""
    names = site.fill({"middle": GPUS - 1}, "left") + site.fill({"middle": GPUS}, "right")
    slow = gpu_pod("slow")
    slow["metadata"]["finalizers"] = ["example.org/slow"]
    site.create(slow, "low", on="left")
    site.when("slow", bound)
    site.create(gpu_pod("important"), "high")
    site.when("slow", lambda pod: "deletionTimestamp" in pod["metadata"])
    return names


def protect(site: Site, *, at_least: int, healthy: int) -> None:
    """Cover the pods of low priority by a budget, and wait until it counts them."""
    spec = {"selector": {"matchLabels": {"priority": "low"}}, "minAvailable": at_least}
    site.api.create(BUDGETS, {"metadata": {"name": "budget"}, "spec": spec})
    site.stack.cluster.wait_for(
        f"{BUDGETS}/budget",
        lambda found: found.get("status", {}).get("currentHealthy") == healthy,
    )

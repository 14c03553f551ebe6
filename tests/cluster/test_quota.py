"""ResourceQuota on GPUs and on shares of them: Kubernetes' own, which reads what pods ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpus.demand import demand_of
from kube.objects import Pod
from kube.wire import convert
from localcluster.api import ApiError
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Create, Object, PodWhen, bound, gpu_pod

pytestmark = pytest.mark.controlplane

GPU = "nvidia.com/gpu"
SHARE = "gpudetour.io/gpu-memory"
GI = 1 << 30

Limit = Callable[[str, str], None]
Used = Callable[[str, str], None]


@pytest.fixture
def limit(stack: Stack, namespace: str) -> Limit:
    """Limits what all pods of the test's namespace may ask for of one resource; returns when the
    API server keeps to it.
    """

    def set_limit(resource: str, amount: str) -> None:
        quota = {"metadata": {"name": "team"}, "spec": {"hard": {f"requests.{resource}": amount}}}
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        stack.cluster.api.create(path, quota)
        stack.cluster.wait_for(f"{path}/team", lambda found: "used" in found.get("status", {}))
        # Admission hears of the quota, and of what is counted for it, later than those who read it.
        until(
            lambda: "exceeded quota: team" in refusal_of(stack, namespace, asking(resource, 99)),
            timeout=30,
            what="the quota in force",
        )

    return set_limit


def asking(resource: str, amount: int) -> Object:
    """A pod that asks for so much of a resource; of shares, GiB."""
    return share_pod("trial", f"{amount}Gi") if resource == SHARE else gpu_pod("trial", gpus=amount)


def refusal_of(stack: Stack, namespace: str, pod: Object) -> str:
    """Why the API server would not store a pod; empty where it would."""
    try:
        stack.cluster.api.create(f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    except ApiError as error:
        return str(error)
    return ""


@pytest.fixture
def used(stack: Stack, namespace: str) -> Used:
    """Waits until the quota shows so much of a resource as used."""

    def wait(resource: str, amount: str) -> None:
        stack.cluster.wait_for(
            f"/api/v1/namespaces/{namespace}/resourcequotas/team",
            lambda found: found["status"]["used"][f"requests.{resource}"] == amount,
        )

    return wait


def share_pod(name: str, amount: str) -> Object:
    """A pod that asks for a share of one GPU."""
    pod = gpu_pod(name)
    pod["spec"]["containers"][0]["resources"] = {"limits": {SHARE: amount}}
    return pod


def with_all_kinds(pod: Object, resource: str, *, app: str, sidecar: str, init: str) -> Object:
    """The pod with a sidecar, and an init container before and one after it."""

    def asking(name: str, amount: str, **more: str) -> Object:
        limits = {"limits": {resource: amount}}
        return {"name": name, "image": "gpudetour.local/cuda:1", "resources": limits, **more}

    pod["spec"]["containers"] = [asking("main", app)]
    pod["spec"]["initContainers"] = [
        asking("first", init),
        asking("beside", sidecar, restartPolicy="Always"),
        asking("last", init),
    ]
    return pod


def test_a_pod_over_the_quota_of_gpus_is_refused_in_kubernetes_words(
    limit: Limit, used: Used, create: Create, pod_when: PodWhen
) -> None:
    limit(GPU, "2")
    create(gpu_pod("two", gpus=2))
    used(GPU, "2")

    with pytest.raises(ApiError) as refusal:
        create(gpu_pod("one-more"))

    assert refusal.value.status == 403
    assert (
        "exceeded quota: team, requested: requests.nvidia.com/gpu=1, "
        "used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
    ) in str(refusal.value)
    assert pod_when("two", bound)


def test_a_pod_over_the_quota_of_shares_is_refused_in_kubernetes_words(
    limit: Limit, used: Used, create: Create, pod_when: PodWhen
) -> None:
    limit(SHARE, "10Gi")
    create(share_pod("most", "8Gi"))
    used(SHARE, "8Gi")

    with pytest.raises(ApiError) as refusal:
        create(share_pod("too-much", "4Gi"))

    assert refusal.value.status == 403
    assert (
        "exceeded quota: team, requested: requests.gpudetour.io/gpu-memory=4Gi, "
        "used: requests.gpudetour.io/gpu-memory=8Gi, limited: requests.gpudetour.io/gpu-memory=10Gi"
    ) in str(refusal.value)
    create(share_pod("the-rest", "2Gi"))
    used(SHARE, "10Gi")
    assert pod_when("most", bound)
    assert pod_when("the-rest", bound)


@pytest.mark.parametrize(
    ("app", "sidecar", "init", "peak"),
    [
        (2, 1, 1, 3),  # the app beside its sidecar
        (1, 1, 3, 4),  # the init container that runs beside the sidecar
        (1, 3, 1, 4),
    ],
)
def test_sidecars_and_init_containers_count_in_the_quota_as_they_do_for_us(
    limit: Limit,
    used: Used,
    create: Create,
    *,
    app: int,
    sidecar: int,
    init: int,
    peak: int,
) -> None:
    limit(GPU, "8")
    counts = {"app": str(app), "sidecar": str(sidecar), "init": str(init)}

    stored = create(with_all_kinds(gpu_pod("all"), GPU, **counts))

    used(GPU, str(peak))
    assert totals_of(stored) == {GPU: peak}


def test_shares_of_sidecars_and_init_containers_count_in_the_quota_as_they_do_for_us(
    limit: Limit, used: Used, create: Create
) -> None:
    limit(SHARE, "20Gi")

    stored = create(with_all_kinds(gpu_pod("all"), SHARE, app="2Gi", sidecar="1Gi", init="4Gi"))

    used(SHARE, "5Gi")
    assert totals_of(stored) == {SHARE: 5 * GI}


@pytest.mark.parametrize(
    ("resource", "amount", "pod"),
    [(GPU, "1", gpu_pod("next")), (SHARE, "8Gi", share_pod("next", "8Gi"))],
    ids=["gpus", "shares"],
)
def test_what_a_pod_used_is_free_again_when_it_has_ended(
    stack: Stack,
    namespace: str,
    limit: Limit,
    used: Used,
    create: Create,
    pod_when: PodWhen,
    resource: str,
    amount: str,
    pod: Object,
) -> None:
    limit(resource, amount)
    create({**pod, "metadata": {"name": "first"}})
    pod_when("first", bound)
    used(resource, amount)

    # What kubelet says when all containers have ended.
    path = f"/api/v1/namespaces/{namespace}/pods/first/status"
    stack.cluster.api.patch(path, {"status": {"phase": "Succeeded"}})

    used(resource, "0")
    until(
        lambda: not refusal_of(stack, namespace, pod),
        timeout=30,
        what="room in the quota for admission",
    )
    create(pod)
    assert pod_when("next", bound)


def totals_of(pod: Object) -> dict[str, int]:
    """What the extender counts for a pod."""
    demand = demand_of(convert(pod, Pod))
    assert demand is not None
    return {str(name): count for name, count in demand.totals.items()}

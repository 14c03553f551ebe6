"""The API server sends the pods that `gpus.demand` counts to the webhook, and no others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpus.annotations import PREFIX
from gpus.demand import DemandError, demand_of
from kube.objects import Pod
from kube.wire import convert
from localcluster.api import ApiError
from localcluster.stack import Stack
from tests.cluster.pods import Object, plain_pod
from tests.cluster.strange_webhook import (
    TRIAL,
    StrangeWebhook,
    allow,
    in_the_place_of_ours,
    strange_webhook,
)

pytestmark = pytest.mark.controlplane

RUNTIMES = {"nvidia": True, "nvidia-cdi": True, "xnvidia": False, "gvisor": False}
NAMES = (
    *("nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb", "nvidia.com/mig-x"),
    *("gpudetour.io/gpu-memory", "gpudetour.io/memory"),
    *(
        "nvidia.com/gpux",
        "nvidia.com/gpu-x",
        "nvidia.com/mig",
        "nvidia.com/pgpu",
        "x.nvidia.com/gpu",
    ),
    *("example.com/gpu", "cpu", "memory"),
)
NOTHING = ("0", 0, "0.0", "0m", "0Ki")
QUANTITIES = ("1", "2", 1, "1k", "8Gi", "1e0", "500m", "-1", *NOTHING)
COUNT = itertools.count()
NO_ANSWER = "gpudetour's webhook did not answer"

asked = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(QUANTITIES), max_size=2)
resources = st.one_of(
    st.builds(lambda limits: {"limits": limits}, asked),
    st.builds(lambda limits: {"limits": limits, "requests": limits}, asked),
    st.fixed_dictionaries({}, optional={"limits": asked, "requests": asked}),
)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    """A pod as users may write it, also wrongly."""
    pod = plain_pod("drawn")
    pod["spec"]["automountServiceAccountToken"] = False
    for kind, least in (("containers", 1), ("initContainers", 0)):
        drawn = draw(st.lists(resources, min_size=least, max_size=3))
        pod["spec"][kind] = [
            {"name": f"{kind[0]}{number}", "image": "x", "resources": one}
            for number, one in enumerate(drawn)
        ]
    if runtime := draw(st.sampled_from(["", *RUNTIMES])):
        pod["spec"]["runtimeClassName"] = runtime
    return pod


def concerns_us(pod: Object) -> bool:
    """Whether a pod asks for GPUs, however wrongly, or has NVIDIA's runtime."""
    typed = convert(pod, Pod)
    ours = [
        quantity
        for kind in ("containers", "initContainers")
        for container in pod["spec"][kind]
        for resources in container["resources"].values()
        for name, quantity in resources.items()
        if name.startswith(PREFIX)
    ]
    try:
        asks = demand_of(typed) is not None
    except DemandError:
        asks = True
    runtime = RUNTIMES.get(pod["spec"].get("runtimeClassName", ""), False)
    return asks or runtime or any(quantity not in NOTHING for quantity in ours)


@pytest.fixture(scope="module")
def recorder(
    quiet_stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StrangeWebhook]:
    """In the place of our webhook one that changes nothing, so that the policy refuses."""
    api = quiet_stack.cluster.api
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    new = set(RUNTIMES) - {"nvidia"}
    for name in new:
        api.create(classes, {"metadata": {"name": name}, "handler": "runc"})
    folder: Path = tmp_path_factory.mktemp("recorder") / "pki"
    with strange_webhook(folder, allow) as webhook, in_the_place_of_ours(api, webhook):
        yield webhook
    for name in new:
        api.delete(f"{classes}/{name}")


def outcome(stack: Stack, pod: Object) -> str:
    """Empty where the API server would store the pod, else why not."""
    try:
        stack.cluster.api.create(TRIAL, pod)
    except ApiError as error:
        return str(error)
    return ""


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pod=pods())
def test_no_pod_that_counts_is_stored_unseen_and_no_other_is_sent(
    quiet_stack: Stack, recorder: StrangeWebhook, pod: Object
) -> None:
    pod = {**pod, "metadata": {"name": f"drawn-{next(COUNT)}"}}

    refused = outcome(quiet_stack, pod)
    sent = recorder.asked().count(pod["metadata"]["name"])

    assert sent <= 1
    if concerns_us(pod):
        assert refused
    # What is invalid in any case, such as requests unlike limits, is refused before policies are
    # asked, and it is no matter whether the webhook saw it.
    if not refused.startswith("422 Invalid"):
        assert sent == concerns_us(pod)
        assert sent == (NO_ANSWER in refused)


@pytest.mark.parametrize("runtime", [None, "nvidia"])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
@pytest.mark.parametrize("side", ["limits", "requests", "both"])
@pytest.mark.parametrize(
    "name",
    ["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb", "gpudetour.io/gpu-memory"],
)
def test_whoever_asks_is_sent_once(
    quiet_stack: Stack,
    recorder: StrangeWebhook,
    name: str,
    side: str,
    kind: str,
    runtime: str | None,
) -> None:
    pod = plain_pod(f"asks-{next(COUNT)}")
    sides = ("limits", "requests") if side == "both" else (side,)
    asking: dict[str, Any] = {"name": "asks", "image": "x"}
    asking["resources"] = {each: {name: "1"} for each in sides}
    pod["spec"][kind] = [*pod["spec"].get(kind, ()), asking]
    if runtime:
        pod["spec"]["runtimeClassName"] = runtime

    outcome(quiet_stack, pod)

    assert recorder.asked().count(pod["metadata"]["name"]) == 1


@pytest.mark.parametrize("annotated", [True, False])
def test_what_kubelet_shows_of_a_static_pod_is_not_sent(
    quiet_stack: Stack, recorder: StrangeWebhook, annotated: bool
) -> None:
    pod = plain_pod(f"static-{next(COUNT)}")
    pod["spec"]["runtimeClassName"] = "nvidia"
    pod["spec"]["automountServiceAccountToken"] = False
    if annotated:
        pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}

    refused = outcome(quiet_stack, pod)

    assert (NO_ANSWER in refused) is not annotated
    assert recorder.asked().count(pod["metadata"]["name"]) == (0 if annotated else 1)

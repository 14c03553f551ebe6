"""Other software that has to do with GPUs: each is recognised, and told how to live with."""

from __future__ import annotations

import pytest

from doctor.findings import Outcome
from preflight.surroundings import PodWebhook, Surroundings
from tests.preflight.seen import cluster, finding, outcomes, runs

OK, WARNING, BROKEN = Outcome.OK, Outcome.WARNING, Outcome.BROKEN

SEEN: list[tuple[str, Surroundings, Outcome]] = [
    ("nvidia-plugin", runs("DaemonSet", "nvidia-device-plugin", is_nvidia_plugin=True), OK),
    ("nvidia-plugin", runs("Pod", "nvidia-device-plugin-node1", is_nvidia_plugin=True), OK),
    (
        "gpu-operator",
        runs("Deployment", "gpu-operator", "mirror.example/nvidia/gpu-operator:1"),
        OK,
    ),
    (
        "gpu-operator",
        runs("DaemonSet", "nvidia-device-plugin", is_nvidia_plugin=True, is_of_operator=True),
        OK,
    ),
    ("gpu-operator", cluster(groups=frozenset({"nvidia.com"})), OK),
    ("feature-discovery", runs("DaemonSet", "x", "any.example/gpu-feature-discovery:v1"), OK),
    ("dcgm-exporter", runs("DaemonSet", "dcgm-exporter"), OK),
    ("hami", runs("Deployment", "hami-scheduler", "example/hami:v2.10.0"), BROKEN),
    (
        "hami",
        cluster(webhooks=(PodWebhook(configuration="hami-webhook", name="vgpu.hami.io"),)),
        BROKEN,
    ),
    ("volcano", runs("Deployment", "volcano-scheduler"), WARNING),
    ("volcano", runs("DaemonSet", "volcano-vgpu-device-plugin"), BROKEN),
    ("volcano", cluster(groups=frozenset({"scheduling.volcano.sh"})), WARNING),
    ("kai", runs("Deployment", "kai-scheduler-default"), WARNING),
    ("kai", cluster(groups=frozenset({"kai.scheduler"})), WARNING),
    ("runai", runs("Deployment", "runai-scheduler-default"), WARNING),
    ("runai", cluster(groups=frozenset({"engine.run.ai"})), WARNING),
    ("dra", cluster(extended_classes=("gpu.nvidia.com",)), WARNING),
    ("dra", cluster(slices=3), OK),
    ("kueue", runs("Deployment", "kueue-controller-manager"), OK),
    ("kueue", cluster(groups=frozenset({"kueue.x-k8s.io"})), OK),
    ("node-health", runs("DaemonSet", "node-problem-detector"), OK),
    ("node-health", runs("Deployment", "nvsentinel-controller"), OK),
    ("autoscaler", runs("Deployment", "cluster-autoscaler"), WARNING),
    ("autoscaler", cluster(groups=frozenset({"karpenter.sh"})), WARNING),
    (
        "pod-webhooks",
        cluster(webhooks=(PodWebhook(configuration="istio-sidecar-injector", name="x"),)),
        OK,
    ),
]


@pytest.mark.parametrize(("check", "seen", "outcome"), SEEN)
def test_a_neighbour_is_recognised(check: str, seen: Surroundings, outcome: Outcome) -> None:
    result = finding(seen, check).result

    assert result.outcome is outcome, result
    assert result.mend or outcome is OK


@pytest.mark.parametrize("check", sorted({check for check, _, _ in SEEN} - {"pod-webhooks"}))
def test_a_neighbour_that_is_not_there_is_not_seen(check: str) -> None:
    assert finding(cluster(), check).result.outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(("check", "seen", "outcome"), SEEN)
def test_no_neighbour_is_taken_for_another(
    check: str, seen: Surroundings, outcome: Outcome
) -> None:
    del outcome
    fresh = outcomes(cluster())
    changed = {name for name, found in outcomes(seen).items() if found is not fresh[name]}

    assert changed <= {check}


def test_a_mirror_whose_name_says_something_else_misleads_nobody() -> None:
    seen = runs("Deployment", "shop", "hami.karpenter.example:5000/team/shop:volcano-scheduler")

    assert set(outcomes(seen).values()) == {OK, Outcome.NOT_APPLICABLE}


def test_our_own_webhook_is_no_neighbour() -> None:
    own = PodWebhook(
        configuration="gpudetour", name="pods.gpudetour.io", service="gpudetour-system/w"
    )

    assert "no other webhook" in finding(cluster(webhooks=(own,)), "pod-webhooks").result.saw

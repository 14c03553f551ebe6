"""What the judge makes of pods that were never made, and of those that have their node."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest
from msgspec.structs import replace

from explain.causes import Cause
from explain.facts import (
    Deployment,
    DeploymentCondition,
    DeploymentSpec,
    DeploymentStatus,
    Event,
)
from explain.findings import State
from explain.judge import explain
from gpus.model import Health
from kube.objects import ObjectMeta, ObjectReference
from tests.builders import gpu_id, pod
from tests.explain.making import FRESH, OLD, causes, facts, free, missing, refusal


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("gpudetour's webhook did not answer, so GPUs …", Cause.WEBHOOK_DOWN),
        ("gpudetour's webhook has set X, but another one undid it in: main", Cause.WEBHOOK_UNDONE),
        ('pods "a" is forbidden: exceeded quota: team, requested: …', Cause.QUOTA),
        ('pod rejected: RuntimeClass "nvidia" not found', Cause.RUNTIME_CLASS),
        ('admission webhook "pods.gpudetour.io" denied the request: write 8Gi', Cause.REQUEST),
        ("ValidatingAdmissionPolicy 'gpudetour-pods' with binding … denied", Cause.POLICY),
        ('violates PodSecurity "restricted:latest"', Cause.REFUSED),
    ],
)
def test_refusals_by_their_texts(message: str, cause: Cause) -> None:
    told = explain(missing("train", refusal(message)))

    assert told.state is State.REFUSED
    assert causes(told) == [cause]


@pytest.mark.parametrize("asked", ["train", "train-x7k2p", "tra"])
def test_refusals_are_found_by_the_name_of_pod_or_controller(asked: str) -> None:
    found = causes(explain(missing(asked, refusal("exceeded quota: team"))))

    assert found == ([Cause.MISSING] if asked == "tra" else [Cause.QUOTA])


def test_the_latest_refusal_comes_first_and_each_cause_once() -> None:
    told = explain(
        missing(
            "train",
            refusal("exceeded quota: old", time=OLD),
            refusal("exceeded quota: new", time=FRESH),
            refusal("gpudetour's webhook did not answer", time=OLD),
        )
    )

    assert causes(told) == [Cause.QUOTA, Cause.WEBHOOK_DOWN]
    assert "new" in told.findings[0].saw


def test_a_webhook_configuration_that_is_gone_is_told_without_any_event() -> None:
    told = explain(missing("train", webhook_configured=False))

    assert causes(told) == [Cause.WEBHOOK_DOWN, Cause.MISSING]


@pytest.mark.parametrize(
    ("phase", "reason", "cause"),
    [
        ("Failed", "UnexpectedAdmissionError", Cause.KUBELET_REFUSED),
        ("Failed", "OutOfnvidia.com/gpu", Cause.KUBELET_REFUSED),
        ("Failed", "", Cause.ENDED),
        ("Succeeded", "", Cause.ENDED),
    ],
)
def test_pods_that_have_ended(phase: str, reason: str, cause: Cause) -> None:
    known = facts(pod("p").wants(gpus=1).on("n").phase(phase), free("n"))
    assert known.pod is not None
    status = replace(known.pod.status, reason=reason)
    told = explain(changed(known, pod=replace(known.pod, status=status)))

    assert told.state is State.ENDED
    assert causes(told) == [cause]


def test_a_node_that_cannot_start_the_pod_says_so() -> None:
    event = Event(
        involved_object=ObjectReference(kind="Pod", name="p"),
        reason="FailedCreatePodSandBox",
        type="Warning",
        message='no runtime for "nvidia" is configured',
        last_timestamp=FRESH,
    )
    asked = pod("p").wants(gpus=1).on("n").assigned({"main": [gpu_id("n", 0)]}).phase("Pending")

    told = explain(facts(asked, free("n"), events=(event,)))

    assert causes(told) == [Cause.CANNOT_START]
    assert told.findings[0].ends == ("gpudetour doctor --node n",)


def test_what_a_pod_holds_is_told_with_its_wishes_and_its_health() -> None:
    cards = free("n").cards(0, health=Health.FAULTY).annotation_path()
    asked = pod("p").wants(gpus=1).on("n").assigned({"main": [gpu_id("n", 0)]})

    told = explain(facts(asked.wishing(product="*H100*", min_memory="90Gi"), cards))

    assert told.placement is not None
    assert told.placement.wishes == {
        "gpudetour.io/product": True,
        "gpudetour.io/min-memory": False,
    }
    assert causes(told) == [Cause.UNHEALTHY]


def test_what_kubelet_gave_is_told_by_what_the_agent_saw() -> None:
    uid = "uid-p"
    cards = free("n").inventory().plugin_path().in_use({str(gpu_id("n", 1)): uid})

    told = explain(facts(pod("p").wants(gpus=1).on("n").assigned({}), cards))

    assert told.placement is not None
    assert [device.uuid for device in told.placement.devices] == [gpu_id("n", 1)]
    assert "kubelet chose" in told.placement.chosen
    assert told.findings == ()


def test_what_the_webhooks_own_trials_found_is_told_where_it_does_not_answer() -> None:
    found = DeploymentCondition(
        type="AdmissionWorks", status="False", message="a certificate that caBundle does not cover"
    )
    deployment = Deployment(
        metadata=ObjectMeta(name="gpudetour-webhook"),
        spec=DeploymentSpec(replicas=2),
        status=DeploymentStatus(available_replicas=2, conditions=[found]),
    )
    refused = refusal("gpudetour's webhook did not answer")

    told = explain(missing("train", refused, deployments={"gpudetour-webhook": deployment}))

    assert causes(told) == [Cause.WEBHOOK_DOWN]
    assert told.findings[0].ends[:2] == (
        "its trials say: a certificate that caBundle does not cover",
        "it is back when replicas are available: Deployment gpudetour-webhook: 2 of 2 replicas"
        " available",
    )

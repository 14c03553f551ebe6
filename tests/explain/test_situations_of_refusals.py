"""Why a pod was never made: the right cause first, on a real control plane."""

from __future__ import annotations

import pytest

from explain.causes import Cause
from explain.findings import State
from localcluster.waiting import until
from tests.cluster.pods import gpu_pod
from tests.explain.site import TIMEOUT, Site, job

pytestmark = pytest.mark.controlplane

JOBS = "/apis/batch/v1/namespaces/default/jobs"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"


def test_the_quota_is_used_up(site: Site) -> None:
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"requests.nvidia.com/gpu": "0"}}}
    site.free_gpus()
    site.api.create(QUOTAS, quota)
    try:
        exceeded = "exceeded quota: team"
        until(lambda: exceeded in site.refusal(), timeout=TIMEOUT, what="the quota in force")
        site.create(JOBS, job("train-quota", gpu_pod("unused")))

        told = site.first("train-quota", Cause.QUOTA, saw=exceeded)
    finally:
        site.api.delete(f"{QUOTAS}/team")
        until(lambda: not site.refusal(), timeout=TIMEOUT, what="the quota forgotten")

    assert told.state is State.REFUSED


def test_the_webhook_is_down(site: Site) -> None:
    site.stack.stop("webhook")
    try:
        site.free_gpus()
        site.create(JOBS, job("train-webhook", gpu_pod("unused")))

        told = site.first("train-webhook", Cause.WEBHOOK_DOWN)
    finally:
        site.stack.start_webhook()

    assert told.state is State.REFUSED
    assert "Job train-webhook was refused a pod" in told.findings[0].saw


def test_the_webhook_refuses_what_is_written(site: Site) -> None:
    pod = gpu_pod("unused")
    pod["metadata"]["annotations"] = {"gpudetour.io/min-memory": "40"}
    site.create(JOBS, job("train-wrong", pod))

    told = site.first("train-wrong", Cause.REQUEST)

    assert "write the unit too, such as 40Gi" in told.findings[0].saw


def test_the_runtime_class_of_a_job_is_missing(site: Site) -> None:
    pod = gpu_pod("unused")
    pod["spec"]["runtimeClassName"] = "nvidia-special"
    site.create(JOBS, job("train-class", pod))

    told = site.first("train-class", Cause.RUNTIME_CLASS)

    assert told.state is State.REFUSED
    assert "kubectl apply" in told.findings[0].ends[0]


def test_a_pod_that_never_was_has_no_cause_but_that(site: Site) -> None:
    told = site.ask("nobody-made-it")

    assert told.state is State.REFUSED
    assert [found.cause for found in told.findings] == [Cause.MISSING]

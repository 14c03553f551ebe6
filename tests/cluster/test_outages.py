"""What still works, and what is said, while parts of gpudetour are down or get new certificates."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator

import pytest

from localcluster.api import ApiError
from localcluster.stack import Stack
from localcluster.waiting import until
from tests.cluster.pods import Create, PodWhen, bound, gpu_pod, plain_pod, refused

pytestmark = pytest.mark.controlplane


@pytest.fixture
def webhook_and_extender_down(stack: Stack) -> Iterator[None]:
    """Neither is running during the test; both are afterwards."""
    stack.stop("webhook", "extender")
    yield
    if not stack.cluster.processes.alive("webhook"):
        stack.start_webhook()
    if not stack.cluster.processes.alive("extender"):
        stack.start_extender()


@pytest.mark.usefixtures("webhook_and_extender_down")
def test_pods_without_gpus_never_notice(create: Create, pod_when: PodWhen) -> None:
    stored = create(plain_pod("plain"))

    assert "annotations" not in stored["metadata"]
    assert pod_when("plain", bound)


@pytest.mark.usefixtures("webhook_and_extender_down")
def test_a_gpu_pod_is_refused_while_the_webhook_is_down(create: Create) -> None:
    with pytest.raises(ApiError, match=r"gpudetour's webhook did not answer"):
        create(gpu_pod("early"))


@pytest.mark.usefixtures("webhook_and_extender_down")
def test_a_gpu_pod_waits_while_the_extender_is_down_and_is_bound_when_it_is_back(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    stack.start_webhook()
    create(gpu_pod("early"))

    waiting = pod_when("early", lambda pod: refused(pod) != "")

    assert stack.extender_url in refused(waiting)

    stack.start_extender()

    assert pod_when("early", bound)


def test_new_certificates_are_served_without_a_restart(
    stack: Stack, create: Create, pod_when: PodWhen
) -> None:
    processes = stack.cluster.processes
    parts = {"webhook": stack.webhook_url, "extender": stack.extender_url}
    before = {part: (processes.pid(part), fingerprint(url)) for part, url in parts.items()}

    stack.issue_certificates("--force")

    for part, url in parts.items():
        pid, old = before[part]
        await_other_than(old, url)
        assert pid == processes.pid(part)
    create(gpu_pod("after"))
    assert pod_when("after", bound)


def await_other_than(old: str, url: str) -> None:
    """Wait until a server shows another certificate."""
    until(lambda: fingerprint(url) != old, timeout=60, what=f"another certificate at {url}")


def fingerprint(url: str) -> str:
    """SHA-256 of the certificate that a server shows before it asks who is there."""
    host, port = url.removeprefix("https://").split(":")
    certificate = ssl.get_server_certificate((host, int(port)))
    return hashlib.sha256(certificate.encode()).hexdigest()

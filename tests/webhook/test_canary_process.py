"""The webhook goes on serving whatever its canary meets at the API server."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certs.authority import KeyPair
from localcluster.waiting import until
from tests.certs.making import Mounted, authority, server
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, Stream, refusal
from tests.service.calling import client_context, post
from tests.service.process import Process, running
from tests.webhook.reviews import patched, pod, review
from tests.webhook.test_webhook_process import kubeconfig, listing, side

TRIALS = "/api/v1/namespaces/gpudetour-canary/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/gpudetour-system/deployments/gpudetour-webhook"
INTERVAL = "0.1"


@pytest.fixture
def ca() -> KeyPair:
    return authority()


@pytest.fixture
def mounted(tmp_path: Path, ca: KeyPair) -> Mounted:
    files = Mounted(tmp_path / "tls")
    files.put(server(ca))
    return files


def answering(**replies: Reply) -> Callable[[Request], Reply]:
    """RuntimeClasses as ever; `trial`, `deployment` and `rest` for what the canary asks."""

    def reply(request: Request) -> Reply:
        if request.path == TRIALS and request.method == "POST":
            assert request.params == {"dryRun": "All"}
            return replies["trial"]
        if request.path.startswith(DEPLOYMENT):
            return replies.get("deployment", Answer(status=404))
        if "/events" in request.path or "webhookconfigurations" in request.path:
            return replies.get("rest", Answer(status=404))
        return listing(request)

    return reply


@contextmanager
def webhook(mounted: Mounted, api_server: str) -> Iterator[Process]:
    with running(
        *("webhook", "--host=127.0.0.1", "--port=0", "--side-host=127.0.0.1", "--side-port=0"),
        *(f"--tls-dir={mounted.folder}", "--drain=0", f"--canary-interval={INTERVAL}"),
        f"--kubeconfig={kubeconfig(mounted.folder, api_server)}",
    ) as process:
        # The canary may begin before the RuntimeClasses are listed.
        until(lambda: side(process, "/readyz")[0] == 200, timeout=60, what="the webhook ready")
        yield process


def wait_for_trials(api: FakeApiServer, count: int) -> None:
    """Wait until so many trial pods were tried; other requests come in between."""
    seen = 0
    while (tried := sum(r.path == TRIALS for r in api.requests)) < count:
        seen = len(api.wait_for_requests(seen + 1, timeout=30))
    assert tried >= count


def admit(process: Process, ca: KeyPair, times: int) -> None:
    """Have pods admitted, each with a full answer."""
    body = json.dumps(review(pod())).encode()
    for _ in range(times):
        answer = post(process.port(), client_context(ca.certificate), body, path="/mutate")
        stored = patched(pod(), json.loads(answer.data)["response"])
        assert stored["spec"]["runtimeClassName"] == "nvidia"


def test_admissions_go_on_and_the_end_comes_in_time_while_its_calls_hang(
    mounted: Mounted, ca: KeyPair
) -> None:
    reply = answering(trial=Fault.HANG, deployment=Fault.HANG, rest=Fault.HANG)
    with FakeApiServer(reply) as api, webhook(mounted, api.url) as process:
        wait_for_trials(api, 1)
        admit(process, ca, 20)
        assert side(process, "/readyz") == (200, "ok\n")
        process.terminate()

        assert process.exit_code() == 0


STRANGE: tuple[Reply, ...] = (
    Answer(status=404),
    refusal(403, "Forbidden"),
    refusal(429, "TooManyRequests", Retry_After="1"),
    Answer(status=500, body=b"<html>"),
    Answer(body=b"<html>"),
    Answer(body=[1]),
    Answer(body=1),
    Answer(body={"kind": "Status"}),
    Stream([b'{"kind":', Fault.CUT]),
    Answer(body={"metadata": {"annotations": {"x": "y" * (8 << 20)}}}),
)


def test_admissions_go_on_whatever_it_is_answered(mounted: Mounted, ca: KeyPair) -> None:
    strange = itertools.cycle(STRANGE)
    lock = threading.Lock()

    def reply(request: Request) -> Reply:
        with lock:
            now = next(strange)
        return answering(trial=now, deployment=now, rest=now)(request)

    with FakeApiServer(reply) as api, webhook(mounted, api.url) as process:
        # Each trial that goes wrong is repeated before it is told.
        wait_for_trials(api, 4 * len(STRANGE))
        admit(process, ca, 2)
        metrics = side(process, "/metrics")[1]
        process.terminate()

        assert process.exit_code() == 0

    assert "gpudetour_webhook_canary_last_success_timestamp_seconds 0.0" in metrics
    assert 'gpudetour_webhook_canary_trials_total{result="admitted"} 0.0' in metrics
    assert 'gpudetour_webhook_canary_last_result{result="admitted"} 0.0' in metrics
    assert not [r for r in process.records if r.get("event") == "canary failed"]

"""`python -m webhook` as a process: real HTTPS in front, an API server behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
import yaml

from certs.authority import KeyPair
from tests.certs.making import Mounted, authority, server
from tests.fakes.api_server import Answer, FakeApiServer, Fault, Reply, Request, Stream
from tests.service.calling import client_context, post
from tests.service.process import Process, running
from tests.webhook.reviews import patched, pod, review

PATH = "/apis/node.k8s.io/v1/runtimeclasses"


def listing(request: Request) -> Reply:
    """Answer with one RuntimeClass, `nvidia`, which never changes."""
    if request.path != PATH:
        return Answer(status=404)
    if request.is_watch:
        return Stream([Fault.HANG])
    metadata = {"name": "nvidia", "uid": "u1", "resourceVersion": "1"}
    items = [{"metadata": metadata, "handler": "nvidia"}]
    return Answer(body={"metadata": {"resourceVersion": "1"}, "items": items})


@pytest.fixture
def ca() -> KeyPair:
    return authority()


@pytest.fixture
def mounted(tmp_path: Path, ca: KeyPair) -> Mounted:
    files = Mounted(tmp_path / "tls")
    files.put(server(ca))
    return files


def kubeconfig(folder: Path, api_server: str) -> str:
    path = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": api_server}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


@contextmanager
def webhook(mounted: Mounted, api_server: str, *more: str) -> Iterator[Process]:
    options = {
        "--host": "127.0.0.1",
        "--port": "0",
        "--side-host": "127.0.0.1",
        "--side-port": "0",
        "--tls-dir": str(mounted.folder),
        "--drain": "0",
        # The API server here knows no pods.
        "--canary-interval": "0",
        "--kubeconfig": kubeconfig(mounted.folder, api_server),
    }
    given = (part for pair in options.items() for part in pair)
    with running("webhook", *given, *more) as process:
        yield process


def side(process: Process, path: str) -> tuple[int, str]:
    port = process.port("health and metrics")
    with urllib3.PoolManager(retries=False, timeout=10.0) as pool:
        response = pool.request("GET", f"http://127.0.0.1:{port}{path}")
        return response.status, response.data.decode()


def test_a_pod_is_mutated_over_https_and_counted(mounted: Mounted, ca: KeyPair) -> None:
    with FakeApiServer(listing) as api, webhook(mounted, api.url) as process:
        api.wait_for_requests(2)  # the watch follows what was listed
        body = json.dumps(review(pod())).encode()
        answer = post(process.port(), client_context(ca.certificate), body, path="/mutate")
        ready = side(process, "/readyz")
        metrics = side(process, "/metrics")[1]
        process.terminate()
        code = process.exit_code()

    assert answer.status == 200
    stored = patched(pod(), json.loads(answer.data)["response"])
    assert stored["spec"]["runtimeClassName"] == "nvidia"
    assert ready == (200, "ok\n")
    assert 'gpudetour_webhook_requests_total{result="mutated"} 1.0' in metrics
    assert "gpudetour_webhook_duration_seconds_count 1.0" in metrics
    assert code == 0


def test_without_an_api_server_it_is_alive_but_not_ready(mounted: Mounted, ca: KeyPair) -> None:
    with (
        FakeApiServer(lambda _request: Answer(status=500)) as api,
        webhook(mounted, api.url) as process,
    ):
        api.wait_for_requests(1)
        body = json.dumps(review(pod())).encode()
        answer = post(process.port(), client_context(ca.certificate), body, path="/mutate")

        assert answer.status == 503
        assert side(process, "/healthz") == (200, "ok\n")
        assert side(process, "/readyz") == (503, "RuntimeClasses are not listed yet\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--node-selector", "gpu"], "--node-selector 'gpu' is not KEY=VALUE"),
        (["--tls-dir", "/nonexistent"], "cannot serve TLS"),
        (["--kubeconfig", "/nonexistent"], "no usable kubeconfig"),
        (["--port", "70000"], "port 70000 is not between"),
    ],
)
def test_unusable_settings_end_the_process_with_a_sentence(
    mounted: Mounted, options: list[str], message: str
) -> None:
    given = [
        "--tls-dir",
        str(mounted.folder),
        "--kubeconfig",
        kubeconfig(mounted.folder, "http://x"),
    ]
    with running("webhook", *given, *options) as process:
        code = process.exit_code()

    said = [record["text"] for record in process.records if "text" in record]
    assert code == 1
    assert len(said) == 1
    assert message in said[0]

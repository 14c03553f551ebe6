"""`python -m certs run` as a process: what it says of itself, and how it ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import urllib3

from localcluster.waiting import until
from service.certificates import not_after
from tests.certs.cluster import CONFIGURATION, SECRETS, Objects
from tests.fakes.api_server import Answer, FakeApiServer, Reply, Request, refusal
from tests.service.process import Process, running
from tests.webhook.test_webhook_process import kubeconfig, side


class Troubled:
    """An API server that refuses everything while it has trouble."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.objects.add_configuration("pods.gpudetour.io")
        self.trouble: Reply | None = None
        self.ahead = timedelta(0)

    def __call__(self, request: Request) -> Reply:
        if (trouble := self.trouble) is not None:  # it may end at any moment
            return trouble
        if request.path == "/version":
            told = datetime.now(UTC) + self.ahead
            return Answer(headers={"Date": format_datetime(told, usegmt=True)})
        return self.objects.reply(request)


@contextmanager
def certs(folder: Path, url: str, **options: str) -> Iterator[Process]:
    given = {"kubeconfig": kubeconfig(folder, url), "side-host": "127.0.0.1", "side-port": "0"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {**given, **options}.items()]
    with running("certs", "run", *flags) as process:
        yield process


def until_ready(process: Process) -> None:
    until(lambda: side(process, "/readyz")[0] == 200, timeout=20, what="ready")


def test_it_issues_tells_and_ends_on_sigterm(tmp_path: Path) -> None:
    api = Troubled()
    with FakeApiServer(api) as server, certs(tmp_path, server.url) as process:
        until_ready(process)
        metrics = side(process, "/metrics")[1]
        process.popen.send_signal(signal.SIGTERM)
        code = process.exit_code()

    assert code == 0
    assert f"{SECRETS}/gpudetour-webhook-tls" in api.objects.stored
    for name in ("authority", "webhook", "extender", "scheduler-client"):
        assert f'gpudetour_certificate_not_after_seconds{{name="{name}"}}' in metrics
        assert f'gpudetour_certificates_issued_total{{name="{name}",why="missing"}} 1.0' in metrics
    assert 'gpudetour_build_info{component="certs"' in metrics


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (refusal(500, "InternalError"), "certificates in use go on; this is tried again"),
        (refusal(403, "Forbidden"), "grant the service account"),
        (refusal(401, "Unauthorized"), "the token is not accepted"),
    ],
)
def test_while_the_api_server_refuses_it_is_not_ready_and_says_why_once(
    tmp_path: Path, trouble: Reply, told: str
) -> None:
    api = Troubled()
    api.trouble = trouble
    with FakeApiServer(api) as server, certs(tmp_path, server.url, every="0.1s") as process:
        process.wait_for("certificates cannot be looked after")
        server.wait_for_requests(5)
        status, reason = side(process, "/readyz")
        api.trouble = None
        until_ready(process)

    assert status == 503
    assert told in reason
    warnings = [r for r in process.records if r["event"] == "certificates cannot be looked after"]
    assert len(warnings) == 1
    assert told in warnings[0]["advice"]


@pytest.mark.parametrize("wrong", [timedelta(hours=1), -timedelta(hours=1), timedelta(days=-40)])
def test_a_process_whose_clock_is_wrong_issues_by_the_api_servers(
    tmp_path: Path, wrong: timedelta
) -> None:
    api = Troubled()
    api.ahead = -wrong
    with FakeApiServer(api) as server, certs(tmp_path, server.url) as process:
        until_ready(process)
        said = process.wait_for(
            "the clock of this machine and the API server's differ, set it right; the API "
            "server's is used for certificates"
        )
        metrics = side(process, "/metrics")[1]

    assert abs(said["seconds"] - wrong.total_seconds()) < 30
    ahead = next(x for x in metrics.splitlines() if x.startswith("gpudetour_clock_ahead_seconds "))
    assert abs(float(ahead.split()[1]) - wrong.total_seconds()) < 30
    for name, lifetime in (("webhook-tls", 30), ("extender-tls", 30), ("scheduler-client", 730)):
        left = not_after(api.objects.data(f"gpudetour-{name}")["tls.crt"]) - datetime.now(UTC)
        assert abs(left + wrong - timedelta(days=lifetime)) < timedelta(minutes=5)


def test_a_webhook_configuration_that_comes_later_is_filled(tmp_path: Path) -> None:
    api = Troubled()
    del api.objects.stored[CONFIGURATION]
    with FakeApiServer(api) as server, certs(tmp_path, server.url, every="0.2s") as process:
        process.wait_for(
            "there is no webhook configuration to trust the webhook, apply the manifests"
        )
        until_ready(process)
        api.objects.add_configuration("pods.gpudetour.io", "other.gpudetour.io")
        process.wait_for("caBundle of the webhook configuration written")

    assert api.objects.ca_bundles() == [api.objects.data("gpudetour-ca")["ca.crt"]] * 2
    missing = [r for r in process.records if "no webhook configuration" in r["event"]]
    assert len(missing) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    api = Troubled()
    with (
        FakeApiServer(api) as server,
        certs(tmp_path, server.url, write_to=str(file / "below")) as process,
    ):
        said = process.wait_for("certificates cannot be looked after")

    assert "--write-to" in said["advice"]


def test_the_side_port_must_be_free(tmp_path: Path) -> None:
    api = Troubled()
    with FakeApiServer(api) as server:
        taken = str(urllib3.util.parse_url(server.url).port)
        with certs(tmp_path, server.url, side_port=taken) as process:
            assert process.exit_code() == 1

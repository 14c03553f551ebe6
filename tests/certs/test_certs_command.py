"""`certs issue` leaves Secrets, caBundle and files in place, however often it is run."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from certs.__main__ import main
from certs.authority import is_issued_by
from tests.certs.cluster import CONFIGURATION, SECRETS, Objects
from tests.certs.making import authority
from tests.fakes.api_server import FakeApiServer

NAMES = ["gpudetour-ca", "gpudetour-webhook-tls", "gpudetour-extender-tls"]
NAMES += ["gpudetour-scheduler-client"]


class Command:
    """Runs `certs issue` against the objects."""

    def __init__(self, folder: Path, objects: Objects, url: str) -> None:
        self.objects = objects
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": url}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )

    def __call__(self, *options: str) -> Result:
        arguments = ["issue", "--kubeconfig", str(self.kubeconfig), *options]
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    def report(self, *options: str) -> dict[str, str]:
        """Return what became of each certificate and the caBundle."""
        done = self("-o", "json", *options)
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        rows = {row["certificate"]: row["result"] for row in told["certificates"]}
        return {**rows, "caBundle": told["caBundle"]}


@pytest.fixture
def objects() -> Objects:
    found = Objects()
    found.add_configuration("pods.gpudetour.io", "other.gpudetour.io")
    return found


@pytest.fixture
def command(tmp_path: Path, objects: Objects) -> Iterator[Command]:
    with FakeApiServer(objects.reply) as api:
        yield Command(tmp_path, objects, api.url)


def test_one_run_puts_everything_in_place(command: Command, objects: Objects) -> None:
    done = command()

    assert done.exit_code == 0
    assert [f"{SECRETS}/{name}" in objects.stored for name in NAMES] == [True] * 4
    bundle = objects.data("gpudetour-ca")["ca.crt"]
    assert objects.ca_bundles() == [bundle, bundle]
    for name in NAMES[1:]:
        assert is_issued_by(objects.data(name)["tls.crt"], bundle)
    assert objects.stored[f"{SECRETS}/gpudetour-ca"]["type"] == "kubernetes.io/tls"
    assert objects.writes[:2] == [("POST", SECRETS), ("PATCH", CONFIGURATION)]
    assert all(name in done.output for name in NAMES)
    assert "PRIVATE KEY" not in done.output


def test_a_second_run_writes_nothing(command: Command, objects: Objects) -> None:
    command()
    objects.writes.clear()

    assert set(command.report().values()) == {"kept"}
    assert objects.writes == []


def test_force_renews_the_leaves(command: Command, objects: Objects) -> None:
    command()
    before = {name: objects.data(name) for name in NAMES}
    report = command.report("--force")

    assert report["authority"] == report["caBundle"] == "kept"
    changed = [name for name in NAMES if objects.data(name) != before[name]]
    assert changed == NAMES[1:]


def test_a_new_host_renews_one_leaf(command: Command) -> None:
    command()

    assert command.report("--extender-host", "192.0.2.7") == {
        "authority": "kept",
        "webhook": "kept",
        "extender": "names changed",
        "scheduler-client": "kept",
        "caBundle": "kept",
    }


def test_foreign_secrets_are_replaced_and_keep_their_type(
    command: Command, objects: Objects
) -> None:
    objects.set_data("gpudetour-webhook-tls", tls_crt=b"placeholder", tls_key=b"")
    objects.stored[f"{SECRETS}/gpudetour-extender-tls"] = {
        "type": "Opaque",
        "metadata": {"resourceVersion": "x", "labels": {"team": "y"}},
        "data": {"tls.crt": "not base64!"},
    }
    report = command.report()

    assert (report["webhook"], report["extender"]) == ("unusable", "unusable")
    found = objects.stored[f"{SECRETS}/gpudetour-extender-tls"]
    assert (found["type"], found["metadata"]["labels"]) == ("Opaque", {"team": "y"})


def test_an_emptied_ca_bundle_is_filled_again_and_nothing_else_is_touched(
    command: Command, objects: Objects
) -> None:
    command()
    bundle = objects.data("gpudetour-ca")["ca.crt"]
    webhooks = objects.stored[CONFIGURATION]["webhooks"]
    webhooks[1]["clientConfig"]["caBundle"] = base64.b64encode(b"someone's").decode()
    webhooks[1]["namespaceSelector"] = {"matchLabels": {"added-by": "the provider"}}

    assert command.report()["caBundle"] == "filled"
    assert objects.ca_bundles() == [bundle, bundle]
    after = objects.stored[CONFIGURATION]["webhooks"]
    assert after[1]["namespaceSelector"] == {"matchLabels": {"added-by": "the provider"}}


def test_without_a_webhook_configuration_all_else_is_done_and_the_exit_code_is_3(
    command: Command, objects: Objects
) -> None:
    del objects.stored[CONFIGURATION]
    done = command()

    assert done.exit_code == 3
    assert "MutatingWebhookConfiguration gpudetour does not exist" in done.stderr
    assert len(objects.stored) == 4
    objects.add_configuration("pods.gpudetour.io")
    assert command.report()["caBundle"] == "filled"


def test_without_the_namespace_it_says_what_to_do(command: Command, objects: Objects) -> None:
    objects.namespace_exists = False
    done = command()

    assert done.exit_code == 1
    assert "namespace gpudetour-system does not exist, apply the manifests first" in done.stderr


def test_of_two_runs_at_once_one_authority_wins(command: Command, objects: Objects) -> None:
    objects.before_write = lambda: _run_beside(command)
    report = command.report()

    assert set(report.values()) == {"kept"}
    posts = [path for method, path in objects.writes if method == "POST"]
    assert len(posts) == 5  # four of the other run, one of this one, refused


def _run_beside(command: Command) -> None:
    assert command().exit_code == 0


def test_files_are_written_with_closed_keys_and_only_where_they_differ(
    command: Command, objects: Objects, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    command("--write-to", str(target))
    found = {str(path.relative_to(target)): path for path in target.rglob("*") if path.is_file()}
    stamps = {name: path.stat().st_ino for name, path in found.items()}

    assert sorted(found) == [
        f"{holder}/{name}"
        for holder in ("extender", "scheduler-client", "webhook")
        for name in ("ca.crt", "tls.crt", "tls.key")
    ]
    assert found["webhook/tls.crt"].read_bytes() == objects.data("gpudetour-webhook-tls")["tls.crt"]
    for name, path in found.items():
        expected = 0o600 if name.endswith("tls.key") else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected

    command("--write-to", str(target))
    assert {name: path.stat().st_ino for name, path in found.items()} == stamps
    found["webhook/tls.key"].chmod(0o644)
    command("--write-to", str(target))
    assert stat.S_IMODE(found["webhook/tls.key"].stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--webhook-host", "https://x"], "'https://x' is neither a DNS name nor an IP address"),
        (["--kubeconfig", "/nonexistent"], "no usable kubeconfig"),
    ],
)
def test_unusable_options_change_nothing(
    command: Command, objects: Objects, options: list[str], message: str
) -> None:
    done = command(*options)

    assert done.exit_code == 1
    assert message in done.stderr
    assert objects.writes == []


def test_options_come_from_the_environment_too(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUDETOUR_SERVER_LIFETIME", "7d")
    monkeypatch.setenv("GPUDETOUR_WEBHOOK_HOST", "192.0.2.1 192.0.2.2")
    done = json.loads(command("-o", "json").stdout)

    until = datetime.fromisoformat(done["certificates"][1]["validUntil"])
    assert 6 <= (until - datetime.now(UTC)).days <= 7


def test_an_authority_of_someone_else_is_not_trusted_on(command: Command, objects: Objects) -> None:
    other = authority()
    objects.set_data("gpudetour-ca", tls_crt=other.certificate, tls_key=b"lost")
    report = command.report()

    assert report["authority"] == "unusable"
    assert other.certificate not in objects.data("gpudetour-ca")["ca.crt"]

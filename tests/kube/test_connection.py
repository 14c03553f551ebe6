"""Which server and which credentials come out of a kubeconfig or a service account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from kube import connection
from kube.connection import NoConnection, connect

SERVER = "https://127.0.0.1:6443"


def kubeconfig(
    folder: Path,
    *,
    user: dict[str, Any] | None = None,
    cluster: dict[str, Any] | None = None,
    namespace: str | None = None,
    **others: Any,
) -> str:
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": SERVER, **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [
            {"name": "here", "context": context},
            {"name": "there", "context": {**context, "namespace": "over-there"}},
        ],
        "current-context": "here",
        **others,
    }
    file = folder / "config"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def test_a_token_becomes_the_header(tmp_path: Path) -> None:
    found = connect(kubeconfig(tmp_path, user={"token": "abc"}))

    assert found.server == SERVER
    assert found.authorization() == "Bearer abc"
    assert found.verify
    assert found.namespace == "default"


def test_a_client_certificate_needs_no_header(tmp_path: Path) -> None:
    for name in ("ca.crt", "me.crt", "me.key"):
        (tmp_path / name).write_text("pem")
    file = kubeconfig(
        tmp_path,
        cluster={"certificate-authority": "ca.crt", "tls-server-name": "inside"},
        user={"client-certificate": "me.crt", "client-key": "me.key"},
    )

    found = connect(file)

    assert found.authorization() is None
    assert found.ca_file == str(tmp_path / "ca.crt")
    assert found.client_cert_file == str(tmp_path / "me.crt")
    assert found.client_key_file == str(tmp_path / "me.key")
    assert found.tls_server_name == "inside"


def test_credentials_inside_the_file_are_given_as_files(tmp_path: Path) -> None:
    file = kubeconfig(
        tmp_path,
        cluster={"certificate-authority-data": "Y2E="},
        user={"client-certificate-data": "Y3J0", "client-key-data": "a2V5"},
    )

    found = connect(file)

    assert found.ca_file is not None
    assert found.client_cert_file is not None
    assert found.client_key_file is not None
    assert Path(found.ca_file).read_text() == "ca"
    assert Path(found.client_cert_file).read_text() == "crt"
    assert Path(found.client_key_file).read_text() == "key"


EMBEDDED = {"client-certificate-data": "Y3J0", "client-key-data": "a2V5"}


def test_a_key_that_stands_in_the_file_is_written_to_no_disk(tmp_path: Path) -> None:
    found = connect(kubeconfig(tmp_path, user=EMBEDDED))
    assert found.client_key_file is not None
    key = Path(found.client_key_file)

    assert str(key).startswith("/proc/self/fd/")
    assert [key.read_text(), key.read_text()] == ["key", "key"], "each reader begins at the start"
    descriptor = int(key.name)
    del found
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_where_it_must_be_a_file_only_we_can_read_it_and_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kube.kubeconfig._OWN_FILES", tmp_path / "no-proc")
    found = connect(kubeconfig(tmp_path, user=EMBEDDED))
    assert found.client_key_file is not None
    key = Path(found.client_key_file)

    assert (key.read_text(), key.stat().st_mode & 0o777) == ("key", 0o600)
    del found
    assert not key.exists()


@pytest.mark.parametrize("user", [{"token": "abc"}, {"client-certificate": "a", "client-key": "b"}])
def test_a_plain_file_is_read_without_the_official_client(
    tmp_path: Path, user: dict[str, str]
) -> None:
    (tmp_path / "a").write_text("pem")
    (tmp_path / "b").write_text("pem")
    script = "import sys; from kube.connection import connect; connect(sys.argv[1]);"
    script += "sys.exit('kubernetes' in sys.modules)"

    subprocess.run([sys.executable, "-c", script, kubeconfig(tmp_path, user=user)], check=True)


def test_plain_files_mean_what_they_mean_to_the_official_client(tmp_path: Path) -> None:
    """An entry that only the official client knows makes it read the file."""
    for name in ("ca.crt", "me.crt", "me.key"):
        (tmp_path / name).write_text("pem")
    cluster = {"certificate-authority": "ca.crt", "tls-server-name": "inside"}
    user = {"client-certificate": "me.crt", "client-key": "me.key", "token": "abc"}
    plain = connect(kubeconfig(tmp_path, cluster=cluster, user=user, namespace="mine"))
    other = connect(
        kubeconfig(tmp_path, cluster=cluster, user={**user, "as-nobody-knows": 1}, namespace="mine")
    )

    told = [
        {**{f.name: getattr(found, f.name) for f in fields(found)}, "authorization": header}
        for found, header in ((plain, plain.authorization()), (other, other.authorization()))
    ]
    assert told[0] == told[1]


def test_a_login_program_is_asked_for_the_token(tmp_path: Path) -> None:
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-program"},
    }
    program = {
        "apiVersion": answer["apiVersion"],
        "command": "/bin/echo",
        "args": [json.dumps(answer)],
        "interactiveMode": "Never",
    }

    found = connect(kubeconfig(tmp_path, user={"exec": program}))

    assert found.authorization() == "Bearer from-program"


@pytest.mark.parametrize(("context", "namespace"), [(None, "mine"), ("there", "over-there")])
def test_the_namespace_is_that_of_the_context_in_use(
    tmp_path: Path, context: str | None, namespace: str
) -> None:
    file = kubeconfig(tmp_path, namespace="mine")

    assert connect(file, context=context).namespace == namespace


def test_verification_is_left_out_only_on_request(tmp_path: Path) -> None:
    assert not connect(kubeconfig(tmp_path, cluster={"insecure-skip-tls-verify": True})).verify


@pytest.mark.parametrize(
    "text", ["", "[", "only text", "a: b", "- 1", "\x00", "clusters: 7\ncurrent-context: x"]
)
def test_a_file_that_is_no_kubeconfig_is_named_as_such(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)

    with pytest.raises(NoConnection, match="no usable kubeconfig"):
        connect(str(file))


def test_a_kubeconfig_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoConnection):
        connect(kubeconfig(tmp_path, clusters=[]))
    with pytest.raises(NoConnection):
        connect(kubeconfig(tmp_path), context="nowhere")
    with pytest.raises(NoConnection):
        connect(kubeconfig(tmp_path, user={"client-certificate": "no/such/file"}))
    with pytest.raises(NoConnection):
        connect(str(tmp_path / "absent"))


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("pem")
    (tmp_path / "namespace").write_text("gpudetour-system")
    return tmp_path


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.96.0.1", "https://10.96.0.1:6443"), ("fd00::1", "https://[fd00::1]:6443")],
)
def test_in_a_pod_the_token_is_read_anew_for_every_request(
    service_account: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", service_account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")

    found = connect()

    assert found.server == server
    assert found.ca_file == str(service_account / "ca.crt")
    assert found.namespace == "gpudetour-system"
    assert found.authorization() == "Bearer first"
    (service_account / "token").write_text("second\n")
    assert found.authorization() == "Bearer second"


def test_a_token_without_a_server_says_what_to_do(
    service_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", service_account)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(NoConnection, match="name the API server with a kubeconfig"):
        connect()

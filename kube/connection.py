"""Where the API server is and how to prove who we are: service account or kubeconfig."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kube.errors import KubeError

#: Mounted into every pod with a service account token (KEP-1205); kubelet rotates the file.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


#: Seconds; far less than tokens are valid for after they were replaced.
_REMEMBER = 1.0
#: What the official client raises, beside its own error, for a file of an unexpected shape.
_MALFORMED = (TypeError, ValueError, LookupError, AttributeError)


class NoConnection(KubeError):
    """Neither a kubeconfig nor a service account tells where the API server is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An API server and the credentials for it.

    `authorization` is asked for every request, because tokens rotate while we run; it returns the
    value of the header, or None where a client certificate is the credential.
    """

    server: str
    authorization: Callable[[], str | None]
    ca_file: str | None = None
    client_cert_file: str | None = None
    client_key_file: str | None = None
    #: The name in the server's certificate where it is not that in `server`.
    tls_server_name: str | None = None
    verify: bool = True
    namespace: str = "default"


def connect(kubeconfig: str | None = None, *, context: str | None = None) -> Connection:
    """Return the connection of a kubeconfig file, or that of the pod we run in.

    Without `kubeconfig`, the pod's service account comes first and then the usual places
    ($KUBECONFIG, ~/.kube/config). Raises `NoConnection` when nothing usable is found.
    """
    if kubeconfig is None and (SERVICE_ACCOUNT / "token").exists():
        return _in_cluster(SERVICE_ACCOUNT)
    return _from_kubeconfig(kubeconfig, context=context)


def _in_cluster(mount: Path) -> Connection:
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host:
        raise NoConnection(
            f"{mount} holds a token but KUBERNETES_SERVICE_HOST is not set: "
            "name the API server with a kubeconfig"
        )
    namespace = mount / "namespace"
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authorization=lambda: f"Bearer {(mount / 'token').read_text().strip()}",
        ca_file=str(mount / "ca.crt"),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )


def _from_kubeconfig(path: str | None, *, context: str | None) -> Connection:
    # Imported here: in a pod this path is never taken, and the official client with its generated
    # models would cost every agent about 40 MB of resident memory. People wait for its import too.
    from kube.kubeconfig import read_plain

    plain = read_plain(path, context=context)
    if plain is not None:
        return plain
    import yaml
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        config.load_kube_config(config_file=path, context=context, client_configuration=settings)
        contexts, active = config.list_kube_config_contexts(config_file=path)
    except (config.ConfigException, OSError, yaml.YAMLError, *_MALFORMED) as error:
        raise NoConnection(f"no usable kubeconfig: {error}") from error
    chosen = next((each for each in contexts if each["name"] == context), active)
    return Connection(
        server=settings.host,
        authorization=_remembered(
            lambda: settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        ),
        ca_file=settings.ssl_ca_cert,
        client_cert_file=settings.cert_file,
        client_key_file=settings.key_file,
        tls_server_name=settings.tls_server_name,
        verify=settings.verify_ssl,
        namespace=chosen["context"].get("namespace") or "default",
    )


def _remembered(authorization: Callable[[], str | None]) -> Callable[[], str | None]:
    """Ask anew after a second only: the official client copies all its settings each time."""
    known: tuple[float, str | None] = (float("-inf"), None)

    def recent() -> str | None:
        nonlocal known
        now = time.monotonic()
        if now - known[0] >= _REMEMBER:
            known = (now, authorization())
        return known[1]

    return recent

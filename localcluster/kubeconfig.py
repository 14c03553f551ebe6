"""Writing kubeconfig files with everything inside, readable by their owner only."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from localcluster.files import write_atomically
from localcluster.pki import KeyPair

_NAME = "localcluster"


def write_kubeconfig(
    target: Path, *, server: str, ca_file: Path, credentials: KeyPair | str
) -> None:
    """Write a kubeconfig for `server`; the credentials are a client certificate or a bearer token.

    It is written as JSON, which every YAML reader takes.
    """
    if isinstance(credentials, str):
        user = {"token": credentials}
    else:
        user = {
            "client-certificate-data": _embedded(credentials.certificate),
            "client-key-data": _embedded(credentials.key),
        }
    cluster = {"server": server, "certificate-authority-data": _embedded(ca_file)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": cluster}],
        "users": [{"name": _NAME, "user": user}],
        "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
        "current-context": _NAME,
    }
    write_atomically(target, json.dumps(content, indent=2).encode() + b"\n", mode=0o600)


def _embedded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()

"""Plain kubeconfig files, read without the official client, whose import takes a third of a second.

Plain is one file whose user has a token or a client certificate. All others, and all that are not
in order, are left to the official client: what a file means beyond this, it knows.
"""

from __future__ import annotations

import base64
import os
import tempfile
import weakref
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from kube.connection import Connection

T = TypeVar("T")

_USUAL = "~/.kube/config"
#: Open files of this process by number (proc(5)).
_OWN_FILES = Path("/proc/self/fd")


class _Strict(
    msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True, kw_only=True
):
    """Base: a field that is not known here may mean anything."""

    extensions: object = None


class _Cluster(_Strict, frozen=True, kw_only=True):
    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None


class _User(_Strict, frozen=True, kw_only=True):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""


class _Context(_Strict, frozen=True, kw_only=True):
    cluster: str
    user: str
    namespace: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _Config(msgspec.Struct, rename="kebab"):
    """Entries stay as they are until one is chosen: others may be anything."""

    clusters: list[dict[str, object]]
    contexts: list[dict[str, object]]
    users: list[dict[str, object]]
    current_context: str = ""


class _NotPlain(Exception):
    """Somebody else must say what it means, or what is wrong with it."""


def read_plain(path: str | None, *, context: str | None) -> Connection | None:
    """Return what the file says, or None where it is not plain or not in order."""
    named = path or os.environ.get("KUBECONFIG") or _USUAL
    if os.pathsep in named:
        return None
    file = Path(named).expanduser()
    try:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        found = yaml.load(file.read_bytes(), Loader=loader)  # noqa: S506 - safe both
        return _read(msgspec.convert(found, _Config), context, folder=file.parent)
    except (OSError, ValueError, yaml.YAMLError, msgspec.ValidationError, _NotPlain):
        return None


def _read(config: _Config, context: str | None, *, folder: Path) -> Connection:
    chosen = _entry(config.contexts, context or config.current_context, _NamedContext).context
    cluster = _entry(config.clusters, chosen.cluster, _NamedCluster).cluster
    user = _entry(config.users, chosen.user, _NamedUser).user
    if not cluster.server.startswith("https://"):
        raise _NotPlain
    files = _Files(folder)
    found = Connection(
        server=cluster.server.rstrip("/"),
        authorization=lambda: files.kept(f"Bearer {user.token}" if user.token else None),
        ca_file=files.path(cluster.certificate_authority, cluster.certificate_authority_data),
        client_cert_file=files.path(user.client_certificate, user.client_certificate_data),
        client_key_file=files.path(user.client_key, user.client_key_data),
        tls_server_name=cluster.tls_server_name,
        verify=not cluster.insecure_skip_tls_verify,
        namespace=chosen.namespace or "default",
    )
    if not (user.token or found.client_cert_file):
        raise _NotPlain
    return found


def _entry(entries: list[dict[str, object]], name: str, kind: type[T]) -> T:
    for entry in entries:
        if entry.get("name") == name:
            return msgspec.convert(entry, kind)
    raise _NotPlain


class _Files:
    """Paths beside the kubeconfig, and files for what stands in it; these go with the last user."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str, data: str) -> str | None:
        """Return a file with that content or of that name; None where neither is given."""
        if data:
            return self._make(base64.b64decode(data, validate=True))
        if not name:
            return None
        file = self._folder / name
        if not file.is_file():
            raise _NotPlain
        return str(file)

    def kept(self, header: str | None) -> str | None:
        """Return the header: whoever asks for it has us, and so the files."""
        return header

    def _make(self, content: bytes) -> str:
        """Keep content in memory under a path, for OpenSSL reads paths: nobody finds it on a disk,
        also after we were killed. Where that is not possible, in a file that only we can read.
        """
        if hasattr(os, "memfd_create") and _OWN_FILES.is_dir():
            descriptor = os.memfd_create("kubeconfig")
            weakref.finalize(self, os.close, descriptor)
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(content)
            return str(_OWN_FILES / str(descriptor))
        descriptor, name = tempfile.mkstemp(prefix="gpudetour-")
        weakref.finalize(self, Path(name).unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return name

"""`python -m extender` as a process of its own, on an API server with two nodes of one GPU each."""

from __future__ import annotations

import copy
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from certs.authority import KeyPair
from localcluster.stack import answers
from localcluster.waiting import until
from tests.builders import PodBuilder, node
from tests.certs.making import Mounted, server
from tests.extender.port import NODES
from tests.fakes.api_server import Answer, Fault, Reply, Request, Stream, refusal
from tests.fakes.binding_api import BindingApi
from tests.service.calling import client_context
from tests.service.process import Process, running

Object = dict[str, Any]

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/gpudetour-system/leases"


class SmallCluster(BindingApi):
    """All that one extender asks of an API server; no policy compares epochs."""

    def __init__(self, *pods: PodBuilder) -> None:
        super().__init__(*pods)
        self.epoch = None
        self._nodes = [node(name).with_gpus(1).annotation_path().raw() for name in NODES]
        self._lease: Object | None = None

    def _ordinary(self, request: Request) -> Reply:
        if request.path == "/api/v1/nodes":
            if request.is_watch:
                return Stream([Fault.HANG])
            nodes = copy.deepcopy(self._nodes)
            return Answer(body={"metadata": {"resourceVersion": "1"}, "items": nodes})
        if request.path.startswith(_LEASES):
            return self._keep_lease(request)
        return super()._ordinary(request)

    def _keep_lease(self, request: Request) -> Reply:
        if request.method == "GET":
            return refusal(404, "NotFound") if self._lease is None else Answer(body=self._lease)
        lease = copy.deepcopy(request.body)
        version = 1 if self._lease is None else int(self._lease["metadata"]["resourceVersion"]) + 1
        lease["metadata"]["resourceVersion"] = str(version)
        self._lease = lease
        return Answer(status=201, body=lease)


class Served:
    """The process, and how to reach it."""

    def __init__(self, process: Process, *, ca: KeyPair, folder: Path) -> None:
        self.process = process
        self.ca = ca
        self.port = process.port()
        self.side_port = process.port("health and metrics")
        self._folder = folder

    def context(self, certificate: KeyPair | None = None) -> ssl.SSLContext:
        """Return a client's TLS context, with that certificate if any."""
        if certificate is None:
            return client_context(self.ca.certificate)
        files = Mounted(self._folder / f"client-{len(list(self._folder.iterdir()))}")
        files.put(certificate)
        return client_context(
            self.ca.certificate, cert_file=files.cert_file, key_file=files.key_file
        )


@contextmanager
def served(
    folder: Path, *, api: BindingApi, ca: KeyPair, options: tuple[str, ...] = ()
) -> Iterator[Served]:
    """Run the extender until the block ends; it serves when the block begins."""
    mounted = Mounted(folder / "tls")
    mounted.put(server(ca), trusted=ca.certificate)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(api.url)))
    command = [
        "extender",
        "--host=127.0.0.1",
        "--port=0",
        "--side-host=127.0.0.1",
        "--side-port=0",
        f"--tls-dir={mounted.folder}",
        f"--kubeconfig={kubeconfig}",
        "--fence=off",
        "--log-level=debug",
        *options,
    ]
    with running(*command) as process:
        process.wait_for("leading, listing pods")
        extender = Served(process, ca=ca, folder=folder)
        ready = f"http://127.0.0.1:{extender.side_port}/readyz"
        until(lambda: answers(ready), timeout=60, what="the extender being ready")
        yield extender


def _kubeconfig(url: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "nobody"}}],
        "current-context": "fake",
    }

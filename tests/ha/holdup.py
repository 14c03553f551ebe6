"""A validating webhook of somebody else that keeps one Binding for a while, past the fence."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from localcluster.cluster import LocalCluster
from localcluster.pki import Authority

_NAME = "holdup"
_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
#: The most seconds that the API server waits for a webhook.
_LONGEST = 30


class Holdup:
    """Keeps the first Binding to a node; lets all others pass."""

    def __init__(self, cluster: LocalCluster, folder: Path, *, node: str) -> None:
        self._cluster = cluster
        self._node = node
        self._lock = threading.Lock()  # guards the next one
        self._kept = False
        self._asked_of_any, self._came = threading.Event(), threading.Event()
        self._go_on = threading.Event()
        folder.mkdir()
        authority = Authority(folder)
        authority.create()
        self._ca_file = authority.certificate
        pair = authority.issue(_NAME, common_name=_NAME, hosts=["127.0.0.1"])
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._cluster.apply([self._configuration()])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go_on.set()
        self._cluster.api.delete(f"{_CONFIGURATIONS}/{_NAME}")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def in_force(self) -> None:
        """Wait until the API server, which learns of new webhooks later, asks about any Binding."""
        assert self._asked_of_any.wait(60), "never asked"

    def wait(self) -> None:
        """Wait until there is a Binding to keep."""
        assert self._came.wait(60), "no Binding came"

    def let_go(self) -> None:
        """Let the Binding go on, if the API server has not lost its patience yet."""
        self._go_on.set()

    def _configuration(self) -> dict[str, Any]:
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": _NAME},
            "webhooks": [
                {
                    "name": "holdup.example.org",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "failurePolicy": "Ignore",
                    "timeoutSeconds": _LONGEST,
                    "clientConfig": {
                        "url": f"https://127.0.0.1:{self._server.server_port}/",
                        "caBundle": base64.b64encode(self._ca_file.read_bytes()).decode(),
                    },
                    "rules": [
                        {
                            "operations": ["CREATE"],
                            "apiGroups": [""],
                            "apiVersions": ["v1"],
                            "resources": ["pods/binding"],
                        }
                    ],
                }
            ],
        }

    def _asked(self, review: dict[str, Any]) -> None:
        request = review["request"]
        self._asked_of_any.set()
        if request.get("dryRun") or request["object"]["target"]["name"] != self._node:
            return
        with self._lock:
            if self._kept:
                return
            self._kept = True
        self._came.set()
        self._go_on.wait(_LONGEST)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        holdup = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                holdup._asked(review)
                review["response"] = {"uid": review["request"]["uid"], "allowed": True}
                body = json.dumps(review).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

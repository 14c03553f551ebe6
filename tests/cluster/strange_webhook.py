"""A webhook in the place of ours, which records what it is asked and answers as it is told."""

from __future__ import annotations

import base64
import copy
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from localcluster.api import ApiClient, ApiError
from localcluster.pki import Authority, KeyPair
from localcluster.waiting import until
from tests.cluster.pods import Object, gpu_pod

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
TRIAL = "/api/v1/namespaces/default/pods?dryRun=All"
#: Where our own webhook tries at moments of its own what becomes of pods.
CANARY = "gpudetour-canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back; no body at all closes the connection."""

    body: bytes | None
    status: int = 200


Reply = Callable[[Object], Answer]


def review(request: Object, **response: Any) -> Object:
    """An AdmissionReview that allows the request, but for what is given."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": request["uid"], "allowed": True, **response},
    }


def allow(request: Object) -> Answer:
    """Let everything pass unchanged."""
    return Answer(body=json.dumps(review(request)).encode())


def patching(patch: object) -> Reply:
    """Answer with a JSON patch, or what stands in its place."""

    def reply(request: Object) -> Answer:
        encoded = base64.b64encode(json.dumps(patch).encode()).decode()
        answer = review(request, patchType="JSONPatch", patch=encoded)
        return Answer(body=json.dumps(answer).encode())

    return reply


class StrangeWebhook:
    """Where it serves, whom it is trusted by, and what it was asked; `reply` may be changed."""

    def __init__(self, url: str, ca_bundle: str, reply: Reply) -> None:
        self.url = url
        self.ca_bundle = ca_bundle
        self.reply = reply
        self.requests: list[Object] = []
        self._lock = threading.Lock()

    def asked(self) -> list[str]:
        """The names of the pods that it was asked about, in order; "" where none is given yet.

        Without the canary's, which may come at any time.
        """
        with self._lock:
            return [
                request["object"]["metadata"].get("name", "")
                for request in self.requests
                if request["namespace"] != CANARY
            ]

    def client_config(self) -> Object:
        """How a webhook configuration names it."""
        return {"url": self.url, "caBundle": self.ca_bundle}

    def answer(self, body: bytes) -> Answer:
        """Record a review and answer it."""
        request = json.loads(body)["request"]
        with self._lock:
            self.requests.append(request)
        return self.reply(request)


@contextmanager
def strange_webhook(folder: Path, reply: Reply) -> Iterator[StrangeWebhook]:
    """Serve on a free loopback port until the block ends."""
    folder.mkdir(parents=True)
    authority = Authority(folder)
    authority.create()
    identity = authority.issue("strange", common_name="strange", hosts=["127.0.0.1"])
    bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
    server = _server(identity)
    webhook = StrangeWebhook(f"https://127.0.0.1:{server.server_address[1]}/", bundle, reply)
    server.RequestHandlerClass = _handler(webhook)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield webhook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def in_the_place_of_ours(api: ApiClient, webhook: StrangeWebhook) -> Iterator[None]:
    """Let the API server call it instead of our webhook, and ours again afterwards."""
    ours = api.get(f"{CONFIGURATIONS}/gpudetour")["webhooks"]
    strange = copy.deepcopy(ours)
    for entry in strange:
        entry["clientConfig"] = webhook.client_config()
    _call(api, strange)
    try:
        until(lambda: _is_asked(api, webhook), timeout=30, what="calls of another webhook")
        yield
    finally:
        _call(api, ours)
        until(lambda: not _is_asked(api, webhook), timeout=30, what="no more calls of it")


def _call(api: ApiClient, webhooks: list[Object]) -> None:
    patch = [{"op": "replace", "path": "/webhooks", "value": webhooks}]
    api.patch(f"{CONFIGURATIONS}/gpudetour", patch, kind="json")


def _is_asked(api: ApiClient, webhook: StrangeWebhook) -> bool:
    before = len(webhook.requests)
    with suppress(ApiError):  # refused by the policy: whether it was asked is the question here
        api.create(TRIAL, gpu_pod("trial"))
    return len(webhook.requests) > before


def _server(identity: KeyPair) -> ThreadingHTTPServer:
    server = _Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server


class _Server(ThreadingHTTPServer):
    # The API server keeps its connections open; they end with the test's process.
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: clients that leave in the middle belong to these tests."""


def _handler(webhook: StrangeWebhook) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer = webhook.answer(self.rfile.read(int(self.headers["Content-Length"])))
            if answer.body is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            """Stay silent."""

    return Handler

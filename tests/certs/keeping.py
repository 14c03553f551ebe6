"""The shipped processes around certificates on a real control plane, and kubelet's part of it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from certs.authority import KeyPair, is_issued_by
from certs.names import AUTHORITY_SECRET
from certs.state import Content, usable
from localcluster import shipped
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.ports import free_ports
from localcluster.stack import CERTS, NAMESPACE, Stack, answers
from localcluster.waiting import until
from tests.certs.making import Mounted, split

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/gpudetour"
LEAVES = {
    "webhook": "gpudetour-webhook-tls",
    "extender": "gpudetour-extender-tls",
    "scheduler-client": "gpudetour-scheduler-client",
}

Object = dict[str, Any]


class Keeper:
    """One process of the shipped Deployment, with further options."""

    def __init__(self, cluster: LocalCluster, name: str, options: dict[str, str]) -> None:
        self._cluster = cluster
        self.name = name
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, CERTS)
        self._command = shipped.command_line(
            CERTS,
            {
                "--side-host": "127.0.0.1",
                "--side-port": str(port),
                "--kubeconfig": str(kubeconfig),
                "--webhook-host": "127.0.0.1",
                "--extender-host": "127.0.0.1",
                **options,
            },
        )

    def start(self) -> None:
        self._cluster.processes.start(self.name, self._command)

    def stop(self) -> None:
        self._cluster.processes.stop(self.name)

    def until_ready(self) -> None:
        self._cluster.processes.wait_ready(
            self.name, lambda: answers(f"{self._url}/readyz"), timeout=60
        )

    def readiness(self) -> str:
        return self._get("/readyz")

    def metric(self, sample_name: str, /, **labels: str) -> float | None:
        for family in text_string_to_metric_families(self._get("/metrics")):
            for sample in family.samples:
                if sample.name == sample_name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def records(self) -> list[Object]:
        lines = self._cluster.processes.log(self.name).read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def alive(self) -> bool:
        return self._cluster.processes.alive(self.name)

    def _get(self, path: str) -> str:
        with urllib3.PoolManager(retries=False, timeout=10.0) as pool:
            return pool.request("GET", self._url + path).data.decode()


class Mount:
    """What kubelet does with the volume of a Secret, looking every `period` seconds."""

    def __init__(self, cluster: LocalCluster, leaf: str, folder: Path, *, period: float) -> None:
        self._cluster = cluster
        self._path = f"{SECRETS}/{LEAVES[leaf]}"
        self._files = Mounted(folder)
        self._period = period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mount-{leaf}")
        self._last: Object = {}
        self.mounted = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            try:
                data = self._cluster.api.get(self._path)["data"]
            except (ApiError, urllib3.exceptions.HTTPError):
                continue  # as kubelet: what is mounted stays
            if data == self._last or not {"tls.crt", "tls.key", "ca.crt"} <= data.keys():
                continue
            self._last = data
            found = {key: base64.b64decode(value) for key, value in data.items()}
            pair = KeyPair(certificate=found["tls.crt"], key=found["tls.key"])
            self._files.put(pair, trusted=found["ca.crt"])
            self.mounted.set()


@contextmanager
def webhook(stack: Stack, *, period: float) -> Iterator[None]:
    """The shipped webhook process, serving from a mounted Secret."""
    with Mount(stack.cluster, "webhook", stack.certificates / "webhook", period=period) as mount:
        assert mount.mounted.wait(60)
        stack.start_webhook()
        try:
            yield
        finally:
            stack.stop("webhook")


def secret(cluster: LocalCluster, name: str) -> dict[str, bytes]:
    """The data of a Secret, empty where it does not exist."""
    try:
        data = cluster.api.get(f"{SECRETS}/{name}")["data"]
    except ApiError as error:
        if error.status == 404:
            return {}
        raise
    return {key: base64.b64decode(value) for key, value in data.items()}


def ca_bundle(cluster: LocalCluster) -> bytes:
    """What the API server verifies all our webhooks against; empty where that is not the same."""
    entries = cluster.api.get(CONFIGURATION)["webhooks"]
    found = {entry["clientConfig"].get("caBundle", "") for entry in entries}
    return base64.b64decode(found.pop()) if len(found) == 1 else b""


def granted(cluster: LocalCluster) -> None:
    """Wait until the API server has learnt what it was told to let the account do."""
    account = (f"--namespace={NAMESPACE}", f"--as=system:serviceaccount:{NAMESPACE}:{CERTS}")
    configuration = "mutatingwebhookconfigurations.admissionregistration.k8s.io/gpudetour"

    def may(*what: str) -> bool:
        return cluster.kubectl("auth", "can-i", *what, *account, check=False).startswith("yes")

    until(
        lambda: may("create", "secrets") and may("patch", configuration),
        timeout=60,
        what="the rights in force",
    )


def mended(cluster: LocalCluster) -> None:
    """Wait for at most 30 s until all Secrets and the caBundle fit together.

    Bundles that are alike are not enough: an authority without its key is replaced a moment later.
    """

    def fits() -> bool:
        held = [secret(cluster, name) for name in (AUTHORITY_SECRET, *LEAVES.values())]
        bundle = ca_bundle(cluster)
        return all(_serves(data, bundle=bundle) for data in held)

    until(fits, timeout=30, what="valid pairs that one bundle verifies")


def _serves(data: Content, *, bundle: bytes) -> bool:
    now = datetime.now(UTC)
    found = usable(data, now=now)
    return (
        found is not None
        and now < found.facts.not_after
        and data.get("ca.crt") == bundle
        and any(is_issued_by(found.pair.certificate, pem) for pem in split(bundle))
    )

"""When pods were bound, as a watch sees it, and how often kube-scheduler has asked in vain."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3

from kube.client import Client
from kube.connection import connect
from kube.objects import Pod
from kube.reflector import Event, Reflector
from localcluster.cluster import LocalCluster
from localcluster.stack import Stack
from localcluster.waiting import until

_ERRORS = re.compile(
    r'^scheduler_schedule_attempts_total\{[^}]*result="error"[^}]*\} (\S+)$', re.MULTILINE
)
_FILTERS = re.compile(
    r'^gpudetour_extender_duration_seconds_count\{verb="filter"\} (\S+)$', re.MULTILINE
)


class Binds:
    """The moments at which pods of one namespace were first seen with a node."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the next one
        self._seen: dict[str, tuple[float, str]] = {}

    def on_event(self, event: Event[Pod]) -> None:
        pod = event.object
        if pod.spec.node_name:
            with self._changed:
                self._seen.setdefault(pod.metadata.name, (time.monotonic(), pod.spec.node_name))
                self._changed.notify_all()

    def bound(self) -> frozenset[str]:
        """Return the names of the pods that were bound so far."""
        with self._changed:
            return frozenset(self._seen)

    def wait(self, *pods: str, timeout: float = 30.0) -> float:
        """Return the monotonic time at which the first of these pods was seen bound."""

        def first() -> float | None:
            return min((self._seen[pod][0] for pod in pods if pod in self._seen), default=None)

        with self._changed:
            at = self._changed.wait_for(first, timeout)
        assert at is not None, f"none of {pods} was bound within {timeout} s"
        return at

    def node(self, pod: str) -> str:
        """Return where a bound pod is."""
        return self._seen[pod][1]


@contextmanager
def binds_of(cluster: LocalCluster, namespace: str) -> Iterator[Binds]:
    """Watch the pods of a namespace during the block."""
    binds, stop = Binds(), threading.Event()
    client = Client(connect(str(cluster.admin_kubeconfig)))
    path = f"/api/v1/namespaces/{namespace}/pods"
    reflector = Reflector(client, path, type=Pod, on_event=binds.on_event)
    thread = threading.Thread(target=reflector.run, args=(stop,))
    thread.start()
    try:
        assert reflector.synced.wait(60)
        yield binds
    finally:
        stop.set()
        reflector.close()
        thread.join()
        client.close()


def filters(stack: Stack) -> int:
    """Return how many times the extender has answered filter since it was started."""
    with urllib3.PoolManager(retries=False, timeout=5.0) as pool:
        text = pool.request("GET", f"{stack.side_url('extender')}/metrics").data.decode()
    found = _FILTERS.search(text)
    assert found is not None
    return int(float(found[1]))


def shown(side_url: str, name: str) -> float:
    """Return one of an extender's values; labels are a part of the name. One not there is 0."""
    with urllib3.PoolManager() as pool:
        text = pool.request("GET", f"{side_url}/metrics").data.decode()
    found = re.search(rf"^gpudetour_extender_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def wait_for_nodes(stack: Stack, count: int) -> None:
    """Wait until the extender has heard of so many nodes on the annotation path, and no others."""

    def known() -> bool:
        names = ("nodes", 'path_nodes{path="annotation"}')
        return all(shown(stack.side_url("extender"), name) == count for name in names)

    until(known, timeout=60, what=f"{count} nodes for the extender")


def wait_for_no_pods(stack: Stack) -> None:
    """Wait until the extender has heard that no GPU pod is left; the next one finds all free."""

    def forgotten() -> bool:
        names = ("pods", "reservations", "holds")
        return not any(shown(stack.side_url("extender"), name) for name in names)

    until(forgotten, timeout=60, what="no GPU pods for the extender")


def errors(cluster: LocalCluster) -> int:
    """Return how many of kube-scheduler's attempts ended in an error since it was started."""
    with urllib3.PoolManager(ca_certs=str(cluster.ca_file), retries=False, timeout=5.0) as pool:
        text = pool.request("GET", f"{cluster.scheduler.url}/metrics").data.decode()
    return sum(int(float(count)) for count in _ERRORS.findall(text))

"""What the lists are made of, read from the API server in as few calls as there are collections.

The calls run side by side: a slow one hides the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cli.fleet import Seen
from gpus.annotations import GPU_SELECTOR
from kube.client import Client
from kube.errors import Forbidden
from kube.objects import Lease, Node, Pod

#: Where gpudetour is installed.
SYSTEM = "gpudetour-system"
NODES = "/api/v1/nodes"
#: The agents' Leases have the names of their nodes.
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
SELECTED: Mapping[str, str] = {"labelSelector": GPU_SELECTOR}
#: Only these hold anything.
HOLDING: Mapping[str, str] = {
    **SELECTED,
    "fieldSelector": "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed",
}
#: Objects a page. Metadata is small, and each page takes a round trip.
_PAGE = "2000"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is wanted of a cluster.

    With `pods`, all GPU pods and what they ask for; else only who holds something. `namespace` is
    that of the pods, None for all. Where pods are asked for, nodes that the caller may not read are
    missed, and so are heartbeats anyway.
    """

    namespace: str | None = None
    pods: bool = False
    leases: bool = False

    @property
    def selection(self) -> Mapping[str, str]:
        """Return the query for pods."""
        return SELECTED if self.pods else HOLDING


def pods_path(namespace: str | None) -> str:
    """Return the collection of the pods of one namespace, or of all."""
    return f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"


def read(client: Client, scope: Scope) -> tuple[Seen, list[Forbidden]]:
    """Read nodes, GPU pods and heartbeats; also return which optional ones are not allowed."""
    missed: list[Forbidden] = []

    def optional(call: Callable[[], list[T]]) -> list[T]:
        try:
            return call()
        except Forbidden as error:
            missed.append(error)
            return []

    def nodes() -> list[Node]:
        return client.list_all(NODES, type=Node, params=SELECTED, metadata_only=True).items

    def pods() -> list[Pod]:
        path, params = pods_path(scope.namespace), {"limit": _PAGE, **scope.selection}
        return client.list_all(path, type=Pod, params=params, metadata_only=not scope.pods).items

    def leases() -> list[Lease]:
        return client.list_all(LEASES, type=Lease).items

    with ThreadPoolExecutor(3) as pool:
        wanted = pool.submit((lambda: optional(nodes)) if scope.pods else nodes)
        beats = pool.submit(lambda: optional(leases) if scope.leases else [])
        found = pool.submit(pods)
        seen = Seen(
            nodes=wanted.result(),
            pods=found.result(),
            leases={lease.metadata.name: lease for lease in beats.result()},
            at=datetime.now(UTC),
            held_only=not scope.pods,
        )
    return seen, missed

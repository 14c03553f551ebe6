"""What the agent leaves on its node when it ends: everything where another comes, else nothing.

An agent that is told to end cannot know by itself whether it is replaced or uninstalled; it asks
whether its DaemonSet is still there. Rights are what makes that hard: `kubectl delete -f` deletes
them at once with all else, long before pods end. So the agent has a second set of them, the least
that it takes to clean up, which no file names: it belongs to the Namespace, and the garbage
collector takes it away when that is gone. The namespace controller ends pods before anything else
in a namespace (KEP-5080, on since Kubernetes 1.33), so the service account outlives them too, if it
is one that no file names: `default`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import structlog

from kube.client import Client
from kube.errors import Conflict, KubeError, NotFound
from nodeagent.deviceplugin.cdi import CdiSpec
from nodeagent.node import OwnNode
from nodeagent.publisher import Publisher, Wanted
from service.logs import ERROR

#: Of the ClusterRole and the ClusterRoleBinding; a policy lets agents create no others.
NAME = "gpudetour-departure"

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_GROUP = "rbac.authorization.k8s.io"
#: Seconds between looks whether the rights are there: what an earlier install left may go only
#: after we have seen it.
_FIRST, _LATER = 60.0, 3600.0
#: How often a write is tried, for there is no later.
_ATTEMPTS = 3

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The DaemonSet that starts agents, and the service account that they have."""

    namespace: str
    daemonset: str
    account: str = "default"

    @property
    def path(self) -> str:
        """Where the API server keeps the DaemonSet."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/daemonsets/{self.daemonset}"


def home_of(text: str) -> Home | None:
    """Read NAMESPACE/NAME; None for the empty text. Raises `ValueError`."""
    if not text:
        return None
    namespace, slash, name = text.partition("/")
    if not namespace or not slash or not name or "/" in name:
        raise ValueError(f"--daemonset: {text!r} is not NAMESPACE/NAME")
    return Home(namespace=namespace, daemonset=name)


def rights(home: Home, *, namespace_uid: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ClusterRole and the ClusterRoleBinding that outlive those of the manifests."""
    metadata = {
        "name": NAME,
        "labels": {
            "app.kubernetes.io/name": "gpudetour-node-agent",
            "app.kubernetes.io/part-of": "gpudetour",
        },
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Namespace", "name": home.namespace, "uid": namespace_uid}
        ],
    }
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "patch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        {
            "apiGroups": ["apps"],
            "resources": ["daemonsets"],
            "resourceNames": [home.daemonset],
            "verbs": ["get"],
        },
    ]
    role = {"apiVersion": f"{_GROUP}/v1", "kind": "ClusterRole", "metadata": metadata}
    binding = {"apiVersion": f"{_GROUP}/v1", "kind": "ClusterRoleBinding", "metadata": metadata}
    account = {"kind": "ServiceAccount", "name": home.account, "namespace": home.namespace}
    return (
        role | {"rules": rules},
        binding
        | {
            "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": NAME},
            "subjects": [account],
        },
    )


class Departure:
    """Keeps the rights to clean up, and cleans up where this was the last agent of the node."""

    def __init__(self, client: Client, home: Home | None, *, cdi: CdiSpec) -> None:
        self._client = client
        self._home = home
        self._cdi = cdi

    def run(self, stop: threading.Event) -> None:
        """See to it until `stop` that the rights are there."""
        pause = _FIRST
        while not stop.is_set():
            if self._home is not None:
                try:
                    self._provide(self._home)
                except KubeError as error:
                    log.warning(
                        "an uninstall would leave this Node as it is", **{ERROR: str(error)}
                    )
            stop.wait(pause)
            pause = _LATER

    def leave(self, node_name: str) -> None:
        """Take away what agents wrote on the node, unless another agent is to come.

        Sockets are the plugins' own to remove, whoever comes; the Lease goes with its namespace.
        """
        if self._home is None or not self._is_last(self._home):
            return
        try:
            self._cdi.remove()
        except OSError as error:
            log.warning("CDI spec not removed", path=str(self._cdi.path), **{ERROR: str(error)})
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._clean(node_name)
            except KubeError as error:
                log.warning("Node not cleaned up", attempt=attempt, **{ERROR: str(error)})
            else:
                log.info("uninstalled: the Node says nothing of ours any more")
                return

    def _clean(self, node_name: str) -> None:
        only = {"fieldSelector": f"metadata.name={node_name}"}
        for node in self._client.list_all("/api/v1/nodes", type=OwnNode, params=only).items:
            # A new one each time: it does not repeat what it sent a moment ago.
            Publisher(self._client, node_name).publish(node, Wanted())

    def _provide(self, home: Home) -> None:
        uid = self._client.get(f"/api/v1/namespaces/{home.namespace}")["metadata"]["uid"]
        role, binding = rights(home, namespace_uid=uid)
        for resource, body in (("clusterroles", role), ("clusterrolebindings", binding)):
            try:
                self._client.create(f"{_RBAC}/{resource}", body)
            except Conflict:  # another agent was first
                continue

    def _is_last(self, home: Home) -> bool:
        """Tell whether the DaemonSet is gone or going; whoever cannot be asked is no proof."""
        try:
            found = self._client.get(home.path)
        except NotFound:
            return True
        except KubeError as error:
            log.warning("the Node is left as it is", **{ERROR: str(error)})
            return False
        return "deletionTimestamp" in found["metadata"]

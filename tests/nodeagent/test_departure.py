"""What an agent leaves on its node: all where it is replaced, nothing where it is uninstalled.

The manifests are applied and deleted as users do it. Kubelet is played by the test, which ends the
agent when the API server has told the pod to end.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kube.client import Client
from localcluster import shipped
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.controlplane import ControlPlaneOptions
from localcluster.kubeconfig import write_kubeconfig
from localcluster.nvml.install import install
from localcluster.nvml.machine import Machine
from localcluster.stack import AGENT, AGENT_ACCOUNT, NAMESPACE
from localcluster.waiting import until
from nodeagent.departure import NAME, Departure, home_of
from nodeagent.deviceplugin.cdi import FILE_NAME, CdiSpec
from nodeagent.deviceplugin.driver_files import Roots
from tests.fakes.api_server import Answer, FakeApiServer, Request, refusal
from tests.fakes.kubelet import FakeKubelet

Object = dict[str, Any]

NODE = "leaving"
FILE = shipped.MANIFESTS / "kubeadm.yaml"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
RIGHTS = tuple(
    f"/apis/rbac.authorization.k8s.io/v1/{kind}/{NAME}"
    for kind in ("clusterroles", "clusterrolebindings")
)
WAIT = 90.0


class Site:
    """A cluster with everything applied, and one node whose kubelet is played."""

    def __init__(self, cluster: LocalCluster, machine: Machine, folder: Path) -> None:
        self.cluster = cluster
        self.api = cluster.api
        self._machine = machine
        self._folder = folder
        self.cdi = folder / "cdi" / "gpudetour.io-gpu.json"

    def apply(self) -> None:
        """Install, and wait for the agent's pod."""
        self.cluster.kubectl("apply", "-f", str(FILE))
        until(lambda: self.pod() is not None, timeout=WAIT, what="the agent's pod")

    def pod(self) -> Object | None:
        """The agent's pod on the node, if there is one that is not told to end."""
        found = self.api.get(PODS, labelSelector=f"app.kubernetes.io/name={AGENT}")["items"]
        live = (pod for pod in found if not pod["metadata"].get("deletionTimestamp"))
        return next((pod for pod in live if pod["spec"].get("nodeName") == NODE), None)

    def start(self, kubelet: FakeKubelet) -> subprocess.Popen[bytes]:
        """Start the agent with the token and the options that its pod has."""
        pod = self.pod()
        assert pod is not None
        command = shipped.command_line(
            AGENT,
            {
                "--kubeconfig": str(self._kubeconfig(pod)),
                "--node-name": NODE,
                "--driver-root": str(self._machine.driver_root),
                "--dev-root": str(self._machine.driver_root),
                "--host-root": "/",
                "--kubelet-dir": str(kubelet.root),
                "--device-plugin-dir": str(kubelet.folder),
                "--cdi-dir": str(self.cdi.parent),
                "--device-list": "cdi",
                "--side-host": "127.0.0.1",
                "--side-port": "0",
            },
        )
        assert command[0] == sys.executable
        log = (self._folder / "agent.log").open("ab")
        with log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def _kubeconfig(self, pod: Object) -> Path:
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        }
        request = {"spec": {"boundObjectRef": reference}}
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{AGENT_ACCOUNT}/token"
        token = str(self.api.create(path, request)["status"]["token"])
        target = self._folder / "kubeconfig"
        write_kubeconfig(
            target, server=self.cluster.server, ca_file=self.cluster.ca_file, credentials=token
        )
        return target

    def log(self) -> str:
        """What agents said last."""
        return (self._folder / "agent.log").read_text()[-4000:]

    def node(self) -> Object:
        """The Node as it is now."""
        found: Object = self.api.get(f"/api/v1/nodes/{NODE}")
        return found

    def ours(self) -> list[str]:
        """Everything on the Node that agents wrote."""
        node = self.node()
        metadata = node["metadata"]
        names = [*metadata.get("annotations", {}), *metadata.get("labels", {})]
        assert node["status"]["nodeInfo"]["osImage"], "what others said is gone"
        found = [n for n in names if n.startswith(("gpudetour.io/", "nvidia.com/"))]
        conditions = (c["type"] for c in node["status"].get("conditions", ()))
        return [*found, *(c for c in conditions if c == "GPUPathHealthy")]

    def exists(self, path: str) -> bool:
        """Tell whether an object is there."""
        try:
            self.api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def play_the_end_of_pods(self) -> None:
        """Kubelets confirm that pods have ended."""
        for pod in self.api.get(PODS)["items"]:
            if pod["metadata"].get("deletionTimestamp"):
                try:
                    self.api.delete(f"{PODS}/{pod['metadata']['name']}", grace_seconds=0)
                except ApiError as error:
                    # The pod garbage collector was first.
                    if error.status != 404:
                        raise


@pytest.fixture
def site(tmp_path: Path, short_folder: Path, control_plane_parts: None) -> Iterator[Site]:
    """Everything is installed, and no agent runs yet."""
    del control_plane_parts
    options = ControlPlaneOptions(node_lifecycle=False)
    with LocalCluster(tmp_path / "c", options=options) as cluster:
        cluster.create_bare_nodes([NODE])
        machine = install(tmp_path / "root", "2x-rtx-4090", node=NODE)
        site = Site(cluster, machine, short_folder)
        site.apply()
        yield site


def served(site: Site, kubelet: FakeKubelet) -> subprocess.Popen[bytes]:
    """An agent whose Node says everything, and whose devices kubelet has."""
    registered = len(kubelet.registrations)
    process = site.start(kubelet)

    def settled() -> bool:
        assert process.poll() is None, "the agent ended"
        said = site.ours()
        complete = {"gpudetour.io/inventory", "gpudetour.io/gpu", "GPUPathHealthy"} <= set(said)
        complete = complete and len(kubelet.registrations) > registered
        return complete and site.cdi.exists() and all(site.exists(path) for path in RIGHTS)

    until(settled, timeout=WAIT, what="the agent at work")
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    """Tell the agent to end, and wait until it has."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT) == 0


@pytest.mark.controlplane
@pytest.mark.timeout(600)
def test_a_restart_keeps_everything_and_an_uninstall_nothing(
    site: Site, kubelet: FakeKubelet
) -> None:
    process = served(site, kubelet)
    before = site.ours()

    ended(process)

    assert site.ours() == before
    assert site.cdi.exists()

    process = served(site, kubelet)
    site.cluster.kubectl("delete", "-f", str(FILE), "--wait=false")
    # The worst moment: whatever the manifests granted is gone, and the pod is told to end.
    role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/gpudetour-node-agent"
    until(lambda: not site.exists(role), timeout=WAIT, what="the role to be gone")
    until(lambda: site.pod() is None, timeout=WAIT, what="the pod to be told to end")
    ended(process)

    assert site.ours() == [], site.log()
    assert not site.cdi.exists()
    assert [path.name for path in kubelet.folder.glob("*gpudetour*")] == []

    def nothing_left() -> bool:
        site.play_the_end_of_pods()
        if any(site.exists(p) for p in (f"/api/v1/namespaces/{NAMESPACE}", *RIGHTS)):
            return False
        kinds = (
            "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,runtimeclasses,"
            "validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces"
        )
        part = ("-l", "app.kubernetes.io/part-of=gpudetour", "-o", "name")
        return not site.cluster.kubectl("get", kinds, *part).strip()

    until(nothing_left, timeout=WAIT, what="nothing of ours to be left")


@pytest.mark.parametrize("text", ["name", "/name", "namespace/", "a/b/c"])
def test_what_names_no_daemonset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--daemonset"):
        home_of(text)


def test_nothing_is_cleaned_up_where_no_daemonset_is_named() -> None:
    assert home_of("") is None


#: What the API server says of the DaemonSet, and whether the Node is cleaned up then.
ANSWERS: dict[str, tuple[Answer, bool]] = {
    "it is gone": (refusal(404, "NotFound"), True),
    "it is going": (Answer(body={"metadata": {"deletionTimestamp": "2026-11-22T00:00:00Z"}}), True),
    "it is there": (Answer(body={"metadata": {"name": AGENT}}), False),
    "rights are gone": (refusal(403, "Forbidden"), False),
    "the account is gone": (refusal(401, "Unauthorized"), False),
    "the server is ill": (refusal(500, "InternalError"), False),
}


def written(answer: Answer, cdi: Path, *, refusals: int = 0) -> list[str]:
    """Leave a node whose Node says one thing of ours; returns the paths that are patched."""
    node = {"metadata": {"name": NODE, "uid": "u", "annotations": {"gpudetour.io/path": "plugin"}}}
    left = [refusal(409, "Conflict")] * refusals

    def reply(request: Request) -> Answer:
        if request.method == "PATCH":
            return left.pop() if left else Answer()
        if request.path == "/api/v1/nodes":
            return Answer(body={"metadata": {"resourceVersion": "1"}, "items": [node]})
        return answer

    with FakeApiServer(reply) as server:
        client = Client(server.connection())
        home = home_of(f"{NAMESPACE}/{AGENT}")
        spec = CdiSpec(cdi, Roots(driver=Path("/"), dev=Path("/"), host=Path("/")))
        Departure(client, home, cdi=spec).leave(NODE)
        client.close()
        return [request.path for request in server.requests if request.method == "PATCH"]


@pytest.mark.parametrize("said", ANSWERS)
def test_only_a_daemonset_that_is_gone_or_going_makes_it_the_end(said: str, tmp_path: Path) -> None:
    answer, cleaned = ANSWERS[said]
    spec = tmp_path / FILE_NAME
    spec.write_text("{}")

    assert bool(written(answer, tmp_path)) == cleaned
    assert spec.exists() != cleaned


def test_a_refused_write_is_tried_again(tmp_path: Path) -> None:
    assert len(written(refusal(404, "NotFound"), tmp_path, refusals=1)) > 1

"""A cluster on which gpudetour is installed from the shipped files and its image, and nothing else.

The node is real, in an enclosure: pods reach the API server by its Service, the API server reaches
the webhook by its Service. Tests look at it as an admin does, by kubectl and on the node's disk.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from image.configuration import reference_of
from image.product import read_project
from localcluster.api import ApiError
from localcluster.cluster import LocalCluster
from localcluster.files import write_atomically
from localcluster.image.archive import Image, archive
from localcluster.image.product import CHECKOUT, product_archive
from localcluster.nvml.install import install
from localcluster.parts.catalogue import architecture
from localcluster.parts.progress import PlainProgress
from localcluster.settings import default_settings
from localcluster.stack import AGENT, CERTS, EXTENDER, NAMESPACE, WEBHOOK
from localcluster.waiting import WaitedTooLong, until
from tests.incluster.files import documents, identity, images_of
from tests.incluster.pods import GPU, Object, condition, gpu_pod, is_ready
from tests.incluster.remains import remains

NODE = "node1"
#: The cards of the node; more than all tests use at a time.
PROFILE, GPUS = "8x-h100", 8
#: Where the GPU Operator's driver container shows its root on the host: the agent looks there.
DRIVER = Path("/run/nvidia/driver")
CONTROL_PARTS = (WEBHOOK, EXTENDER, CERTS)
#: One replica leads, and where kube-scheduler calls it by a Service, it alone is ready.
_LED = (EXTENDER,)
#: Seconds for what takes some on a busy machine: images start, kubelet tells, leases run out.
PATIENCE = 180.0
_REASON = "gpudetour.io/path-reason"
_PODS = "/api/v1/namespaces/default/pods"
_NODE = f"/api/v1/nodes/{NODE}"


class Site:
    """The cluster with the images imported; gpudetour is installed when a test wants it so."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self._placed = 0
        self._installed: Path | None = None
        self.uuids = install(cluster.node.root / DRIVER.relative_to("/"), PROFILE, node=NODE).uuids

    # The install

    def import_images(self, manifest: Path, *, checkout: Path = CHECKOUT) -> None:
        """Give the node every image that a file names, as an admin without a registry does.

        gpudetour's is made of the packages in `checkout`.
        """
        for reference in images_of(manifest):
            if "kube-scheduler" in reference:
                made = self._scheduler_image(reference)
            else:
                own = reference_of(read_project(checkout))
                made = product_archive(
                    default_settings(),
                    progress=PlainProgress(sys.stderr),
                    checkout=checkout,
                    # As other tests ask for it, so that it is made once.
                    reference=None if reference == own else reference,
                )
            self.cluster.node.ctr("images", "import", str(made))

    def import_as(self, tag: str, manifest: Path, *, checkout: Path) -> Path:
        """Give the node gpudetour's image of `checkout` under another tag; returns a copy of the
        file that names it so.
        """
        text = manifest.read_text()
        for reference in images_of(manifest):
            if "kube-scheduler" not in reference:
                text = text.replace(reference, f"{reference.rpartition(':')[0]}:{tag}")
        target = self.folder / f"{tag}.yaml"
        target.write_text(text)
        self.import_images(target, checkout=checkout)
        return target

    def _scheduler_image(self, reference: str) -> Path:
        image = Image(
            reference=reference,
            program=self.cluster.program("kube-scheduler").read_bytes(),
            path="/bin/kube-scheduler",
            environment={"PATH": "/bin"},
        )
        target = self.folder / "kube-scheduler.tar"
        write_atomically(target, archive(image, architecture=architecture()))
        return target

    def apply(self, file: Path) -> None:
        """`kubectl apply -f`, and wait until all of it serves."""
        self.cluster.kubectl("apply", f"--filename={file}")
        self._installed = file
        self.whole()

    def remove(self) -> None:
        """`kubectl delete -f` of what was applied last."""
        if self._installed is not None:
            self.cluster.kubectl(
                "delete", f"--filename={self._installed}", "--ignore-not-found", "--timeout=120s"
            )
        self._installed = None

    def prune(self, older: Path, newer: Path) -> None:
        """Delete what only the older of two files has, as an admin does after an upgrade."""
        kept = {identity(item) for item in documents(newer)}
        gone = [item for item in documents(older) if identity(item) not in kept]
        if gone:
            items = {"apiVersion": "v1", "kind": "List", "items": gone}
            self.cluster.kubectl("delete", "--filename=-", stdin=json.dumps(items))

    def nothing_remains(self) -> None:
        """Wait until nothing of gpudetour is there any more."""
        try:
            until(lambda: not remains(self.cluster), timeout=PATIENCE, what="its end")
        except WaitedTooLong:
            left = remains(self.cluster)
            assert left == []

    def images(self) -> set[str]:
        """What gpudetour's pods run."""
        return {
            each["image"]
            for part in (*CONTROL_PARTS, AGENT)
            for pod in self.pods_of(part)
            for each in pod["spec"]["containers"]
        }

    def whole(self) -> None:
        """Wait until every part serves and a GPU pod would be admitted."""
        for part in (*CONTROL_PARTS, AGENT):
            until(partial(self._serves, part), timeout=PATIENCE, what=f"{part} rolled out")
        self.offers(GPUS)
        until(self._admits, timeout=PATIENCE, what="a GPU pod admitted")

    def offers(self, count: int) -> None:
        """Wait until kubelet has so many GPUs to give."""
        self.cluster.wait_for(
            _NODE,
            lambda node: node["status"]["allocatable"].get(GPU) == str(count),
            timeout=PATIENCE,
        )

    def on_path(self, path: str) -> None:
        """Wait until the node is on that path and says that all is well."""
        self.cluster.wait_for(
            _NODE,
            lambda node: (
                node["metadata"]["annotations"].get("gpudetour.io/path") == path
                and condition(node, "GPUPathHealthy") == "True"
            ),
            timeout=PATIENCE,
        )

    def settling(self) -> None:
        """Wait until the agent waits for nothing but kubelet's memory of its plugin."""
        self.cluster.wait_for(
            _NODE,
            lambda node: "kubelet remembers" in node["metadata"]["annotations"][_REASON],
            timeout=PATIENCE,
        )

    def _serves(self, part: str) -> bool:
        """Whether all pods of a workload are of its newest template, and enough of them ready."""
        kind = "daemonsets" if part == AGENT else "deployments"
        item = self.cluster.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{part}")
        status = item["status"]
        wanted = status["desiredNumberScheduled"] if part == AGENT else item["spec"]["replicas"]
        updated = "updatedNumberScheduled" if part == AGENT else "updatedReplicas"
        pods = self.pods_of(part)
        return (
            status.get("observedGeneration") == item["metadata"]["generation"]
            and status.get(updated) == wanted == len(pods)
            and sum(map(is_ready, pods)) >= (1 if part in _LED else wanted)
        )

    def _admits(self) -> bool:
        try:
            self.cluster.api.create(f"{_PODS}?dryRun=All", gpu_pod("tried"))
        except ApiError:
            return False
        return True

    # Parts of gpudetour

    def pods_of(self, part: str) -> list[Object]:
        """The pods of one workload that are not on their way out."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        found = self.cluster.api.get(path, labelSelector=f"app.kubernetes.io/name={part}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def delete_part(self, part: str) -> None:
        """Delete all pods of a workload at once and wait until others are there and ready."""
        before = {pod["metadata"]["uid"] for pod in self.pods_of(part)}
        names = [pod["metadata"]["name"] for pod in self.pods_of(part)]
        self.cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", *names, "--wait=true")

        def replaced() -> bool:
            now = self.pods_of(part)
            return not before & {pod["metadata"]["uid"] for pod in now} and self._serves(part)

        until(replaced, timeout=PATIENCE, what=f"other pods of {part}")

    # Pods of users

    def node(self) -> Object:
        return self.cluster.api.get(_NODE)

    def create(self, pod: Object) -> Object:
        return self.cluster.api.create(_PODS, pod)

    def pod(self, name: str) -> Object:
        return self.cluster.api.get(f"{_PODS}/{name}")

    def running(self, name: str) -> Object:
        """Wait until a pod runs."""
        return self.cluster.wait_for(f"{_PODS}/{name}", is_ready, timeout=PATIENCE)

    def place(self) -> Object:
        """Create one more GPU pod as users write it, and return it when it runs."""
        self._placed += 1
        name = f"placed-{self._placed}"
        self.create(gpu_pod(name))
        return self.running(name)

    def deployed(self, name: str) -> list[Object]:
        """Wait until a Deployment's only pod runs, and return it as a list."""

        def ready() -> list[Object]:
            found = self.cluster.api.get(_PODS, labelSelector=f"app={name}")["items"]
            alive = [
                pod
                for pod in found
                if pod["status"]["phase"] != "Failed" and "deletionTimestamp" not in pod["metadata"]
            ]
            return alive if len(alive) == 1 and all(map(is_ready, alive)) else []

        return until(ready, timeout=PATIENCE, what=f"the pod of deployment {name}")

    def environment(self, name: str) -> dict[str, str]:
        """What a container finds in its environment."""
        text = self.cluster.kubectl("exec", name, "--", "box", "env")
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def devices(self, name: str) -> list[str]:
        """The GPUs that a container was given by CDI, by UUID."""
        found = self.environment(name)
        return [value for key, value in found.items() if key.startswith("GPUDETOUR_DEVICE_")]

    def delete_pods(self) -> None:
        """Delete all that users have and wait for the end of it."""
        self.cluster.kubectl(
            "delete", "deployments,pods", "--all", "--grace-period=1", "--wait=true"
        )

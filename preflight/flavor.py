"""Which distribution a cluster is, by what its nodes say, and so which files to install. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from preflight.surroundings import Machine

_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A kind of cluster; `preset` is the chart's `flavor`, `page` the one in docs/install.

    `address` is the extender's, empty where no scheduler outside its pod calls it.
    """

    name: str
    page: str
    preset: str = ""
    manifest: str = ""
    address: str = "10.96.0.51"

    @property
    def command(self) -> str:
        """What installs it."""
        if self.manifest:
            return f"kubectl apply -f manifests/{self.manifest}.yaml"
        return helm_install(self.preset)

    @property
    def brings_runtime_class(self) -> bool:
        """Tell whether RuntimeClass nvidia comes with the distribution, and not with ours."""
        return self.preset in ("k3s", "rke2")


def helm_install(preset: str, *settings: str) -> str:
    """Return the command that installs the chart, from a namespace other than the one it makes."""
    values = (f"flavor={preset}", *settings)
    return "helm install -n kube-system gpudetour manifests/chart" + "".join(
        f" --set {value}" for value in values
    )


def _second(name: str) -> Flavor:
    return Flavor(name=name, page="managed", manifest="second-scheduler", address="")


KUBEADM = Flavor(name="kubeadm", page="kubeadm", preset="kubeadm", manifest="kubeadm")
MANAGED = _second("a managed control plane")

#: In this order: what comes first is told by marks that the later ones lack.
_MARKS: tuple[tuple[Flavor, Callable[[Machine], bool]], ...] = (
    (
        Flavor(name="K3s", page="k3s", preset="k3s", manifest="k3s", address="10.43.0.51"),
        lambda node: "+k3s" in node.kubelet,
    ),
    (
        Flavor(name="RKE2", page="rke2", preset="rke2", address="10.43.0.51"),
        lambda node: "+rke2" in node.kubelet,
    ),
    (Flavor(name="k0s", page="k0s", preset="k0s"), lambda node: "+k0s" in node.kubelet),
    (
        Flavor(name="MicroK8s", page="microk8s", preset="microk8s", address="10.152.183.51"),
        lambda node: "microk8s.io/cluster" in node.labels,
    ),
    (
        Flavor(name="Talos", page="talos", preset="talos", manifest="talos"),
        lambda node: node.os_image.startswith("Talos"),
    ),
    (
        Flavor(name="kind", page="kind", manifest="second-scheduler", address=""),
        lambda node: node.provider.startswith("kind://"),
    ),
    (_second("EKS"), lambda node: "-eks-" in node.kubelet),
    (_second("GKE"), lambda node: "-gke." in node.kubelet),
    (_second("AKS"), lambda node: "kubernetes.azure.com/cluster" in node.labels),
    (_second("OpenShift"), lambda node: "node.openshift.io/os_id" in node.labels),
    (KUBEADM, lambda node: _CONTROL_PLANE in node.labels),
)


def flavor_of(machines: Sequence[Machine]) -> Flavor:
    """Return what most nodes say the cluster is; without any control plane node, a managed one.

    Workers of a kubeadm cluster say nothing, so they have no vote.
    """
    votes = Counter(
        index
        for machine in machines
        for index in [next((i for i, (_, is_it) in enumerate(_MARKS) if is_it(machine)), None)]
        if index is not None
    )
    if not votes:
        return MANAGED
    most = max(votes, key=lambda index: (votes[index], -index))
    return _MARKS[most][0]

"""Where each distribution keeps what its kube-scheduler reads. A table, and nothing else.

The paths are those of the distributions' own documentation; options of the command change them for
clusters whose data folder is elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FILE = "kube-scheduler-configuration.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """One way of running kube-scheduler.

    `folder` is where the configuration and the certificates lie on each machine that runs it,
    `kubeconfig` what the distribution gave its scheduler. Both are empty where the scheduler is
    ours, and `folder` alone where the machine has no place for files.
    """

    name: str
    title: str
    folder: str = ""
    kubeconfig: str = ""

    @property
    def takes_files(self) -> bool:
        """Tell whether certificates can lie beside the configuration."""
        return bool(self.folder)

    @property
    def is_ours(self) -> bool:
        """Tell whether the scheduler is the one beside the extender."""
        return not self.kubeconfig


FLAVORS: Mapping[str, Flavor] = MappingProxyType(
    {
        flavor.name: flavor
        for flavor in (
            Flavor(
                name="k3s",
                title="K3s",
                folder="/etc/rancher/k3s/gpudetour",
                kubeconfig="/var/lib/rancher/k3s/server/cred/scheduler.kubeconfig",
            ),
            Flavor(
                name="rke2",
                title="RKE2",
                folder="/etc/rancher/rke2/gpudetour",
                kubeconfig="/var/lib/rancher/rke2/server/cred/scheduler.kubeconfig",
            ),
            Flavor(
                name="kubeadm",
                title="kubeadm and kind",
                folder="/etc/kubernetes/gpudetour",
                kubeconfig="/etc/kubernetes/scheduler.conf",
            ),
            Flavor(
                name="k0s",
                title="k0s",
                folder="/etc/k0s/gpudetour",
                kubeconfig="/var/lib/k0s/pki/scheduler.conf",
            ),
            Flavor(
                name="microk8s",
                title="MicroK8s",
                folder="/var/snap/microk8s/common/gpudetour",
                kubeconfig="/var/snap/microk8s/current/credentials/scheduler.config",
            ),
            Flavor(
                name="talos",
                title="Talos",
                kubeconfig="/system/secrets/kubernetes/kube-scheduler/kubeconfig",
            ),
            Flavor(name="second", title="a scheduler of our own"),
        )
    }
)

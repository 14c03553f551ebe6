"""The configuration files of containerd, kubelet and the pod network. Pure: values in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localcluster.image.make import PAUSE_IMAGE

POD_NETWORK = "10.244.0.0/24"
_LOOPBACK = "127.0.0.1"
_ANY = "0.0.0.0"  # noqa: S104 - every address of a network namespace that nothing else is in
_MTU = 1500


@dataclass(frozen=True, slots=True)
class NodeLayout:
    """Paths of the node: below its folder, or, in an enclosure, those that every machine has."""

    folder: Path
    enclosed: bool = False

    @property
    def containerd_socket(self) -> Path:
        """Where containerd serves the CRI and its own API."""
        return self.folder / "containerd.sock"

    @property
    def containerd_config(self) -> Path:
        """containerd's configuration."""
        if self.enclosed:
            return Path("/etc/containerd/config.toml")
        return self.folder / "containerd.toml"

    @property
    def containerd_state(self) -> Path:
        """Running containers: bundles, root file systems, network namespaces."""
        return self.folder / "run"

    @property
    def kubelet_config(self) -> Path:
        """kubelet's configuration."""
        return self.folder / "kubelet.json"

    @property
    def kubelet_root(self) -> Path:
        """Pods' volumes; the pod-resources socket lies below it."""
        return Path("/var/lib/kubelet") if self.enclosed else self.folder / "kubelet"

    @property
    def pod_resources_socket(self) -> Path:
        """kubelet's PodResources API."""
        return self.kubelet_root / "pod-resources" / "kubelet.sock"

    @property
    def pod_logs(self) -> Path:
        """Output of containers."""
        return self.folder / "pod-logs"

    @property
    def cdi(self) -> Path:
        """CDI specs that containerd reads."""
        return Path("/run/cdi") if self.enclosed else self.folder / "cdi"

    @property
    def cni_config(self) -> Path:
        """The folder of the pod network's configuration."""
        return self.folder / "cni"

    @property
    def cni_data(self) -> Path:
        """The pod addresses in use."""
        return self.folder / "cni-addresses"

    @property
    def proxy_config(self) -> Path:
        """kube-proxy's configuration."""
        return self.folder / "kube-proxy.json"

    @property
    def host_paths(self) -> Path:
        """The record of what was on the machine before."""
        return self.folder / "host-paths.json"


def containerd_toml(
    layout: NodeLayout, *, runc: Path, cni_plugins: Iterable[Path], restrict_oom_score: bool
) -> str:
    """containerd's configuration: runtimes `runc` and `nvidia`, the second being runc as well.

    A machine with NVIDIA's runtime would have its own program behind that name; here its work is
    left to CDI.
    """
    runtimes = "".join(
        f"""
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}.options]
  BinaryName = {_toml(runc)}
  Root = {_toml(layout.containerd_state / "runc")}
"""
        for name in ("runc", "nvidia")
    )
    return f"""version = 3
root = {_toml(layout.folder / "containerd")}
state = {_toml(layout.containerd_state)}
[grpc]
  address = {_toml(layout.containerd_socket)}
[plugins.'io.containerd.internal.v1.opt']
  path = {_toml(layout.folder / "opt")}
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {_toml(PAUSE_IMAGE)}
[plugins.'io.containerd.cri.v1.runtime']
  cdi_spec_dirs = [{_toml(layout.cdi)}]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {_toml(restrict_oom_score)}
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [{", ".join(_toml(folder) for folder in cni_plugins)}]
  conf_dir = {_toml(layout.cni_config)}
{runtimes}"""


def cni_conflist(layout: NodeLayout) -> str:
    """The pod network. In an enclosure each pod has an interface and a route from the node to it.

    Elsewhere it is the loopback interface only: each pod gets an address, which no interface
    carries. The address allocator alone is the whole chain, so that nothing is created outside of
    the pod.
    """
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.cni_data),
        "ranges": [[{"subnet": POD_NETWORK}]],
    }
    if layout.enclosed:
        # The default route only: the gateway is the node, and nothing lies beyond it.
        routed = addresses | {"routes": [{"dst": "0.0.0.0/0"}]}
        plugin = {"type": "ptp", "ipMasq": False, "mtu": _MTU, "ipam": routed}
    else:
        plugin = {"type": "host-local", "ipam": addresses}
    return json.dumps({"cniVersion": "1.0.0", "name": "localcluster", "plugins": [plugin]})


def kube_proxy_configuration(*, kubeconfig: Path, node: str) -> str:
    """A KubeProxyConfiguration that keeps to iptables and leaves the kernel's settings alone."""
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": node,
        "mode": "iptables",
        "detectLocalMode": "ClusterCIDR",
        "clusterCIDR": POD_NETWORK,
        # Sizes of the whole machine's table.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "0s", "syncPeriod": "30s"},
        "healthzBindAddress": f"{_LOOPBACK}:10256",
        "metricsBindAddress": f"{_LOOPBACK}:10249",
    }
    return json.dumps(configuration, indent=2)


def kubelet_configuration(layout: NodeLayout, *, pki: Path, port: int) -> str:
    """A KubeletConfiguration that leaves the machine alone, as far as kubelet allows."""
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": _ANY if layout.enclosed else _LOOPBACK,
        "port": port,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "tlsCertFile": str(pki / "kubelet-serving.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet-serving.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "podLogsDir": str(layout.pod_logs),
        "volumePluginDir": str(layout.folder / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        # Nothing of the machine is reserved or limited for kubelet's sake.
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        # Another program's images, and how full the disk is, are none of its business.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "nodeStatusUpdateFrequency": "2s",
        "failCgroupV1": False,
    }
    return json.dumps(configuration, indent=2)


def _toml(value: Path | str | bool) -> str:
    # JSON's strings and booleans are TOML's.
    return json.dumps(value if isinstance(value, bool) else str(value))

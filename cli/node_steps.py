"""The steps that make a machine a GPU node: what to run, and why just there. Data only.

Downloads come from the makers' own places, with their checksums: NVIDIA's package repository,
dl.k8s.io, and GitHub releases.
"""

from __future__ import annotations

from dataclasses import dataclass

_KEYRING = "/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg"
_REPOSITORY = "https://nvidia.github.io/libnvidia-container"
_K3S = "https://github.com/k3s-io/k3s/releases/download"
_KUBERNETES = "https://dl.k8s.io/release"
_CNI = "https://github.com/containernetworking/plugins/releases/download"
_CNI_VERSION = "v1.8.0"
_TOKEN = "/etc/rancher/k3s/agent-token"  # noqa: S105 (where it is, not what it is)
_JOIN = "/etc/kubernetes/join.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that is there before the first command runs."""

    path: str
    content: str
    reason: str
    mode: str = "0644"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Commands for a POSIX shell, and the files they need."""

    title: str
    reason: str
    script: str
    files: tuple[File, ...] = ()


def runc() -> Step:
    """Return what everything else is built with or calls."""
    return Step(
        title="runc and kernel headers",
        reason="NVIDIA's runtime only wraps a runc that it finds in PATH, and K3s keeps its own"
        ' where nobody looks ("no runtime binary found from candidate list"). Without headers of'
        " the running kernel the driver's module is not built.",
        script="""\
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends ca-certificates curl gnupg runc \\
  "linux-headers-$(uname -r)"
""",
    )


def driver(branch: int) -> Step:
    """Return NVIDIA's driver with open kernel modules."""
    return Step(
        title="driver with open kernel modules",
        reason="Blackwell works with the open ones only, everything since Turing works with them."
        " The driver comes before the toolkit and before Kubernetes: whoever starts without it does"
        " not look again.",
        files=(
            File(
                path="/etc/modprobe.d/disable-nouveau.conf",
                content="blacklist nouveau\noptions nouveau modeset=0\n",
                reason="A GPU has one driver, and NVIDIA's cannot take it from nouveau.",
            ),
            File(
                path="/etc/modules-load.d/nvidia.conf",
                content="nvidia\nnvidia-uvm\n",
                reason="CUDA needs /dev/nvidia-uvm, which nvidia-smi does not make and containers"
                " cannot.",
            ),
        ),
        script=f"""\
apt-get install -y --no-install-recommends nvidia-driver-{branch}-open nvidia-modprobe
if lsmod | grep -q '^nouveau '; then modprobe -r nouveau; fi
modprobe nvidia
modprobe nvidia-uvm
nvidia-modprobe -u -c0
nvidia-smi -L
""",
    )


def toolkit() -> Step:
    """Return NVIDIA's container toolkit from NVIDIA's repository."""
    return Step(
        title="container toolkit",
        reason="it puts devices and libraries into containers. 1.17.8 and later have the fixes of"
        " CVE-2024-0132, CVE-2025-23359 and CVE-2025-23266.",
        script=f"""\
curl -fsSL {_REPOSITORY}/gpgkey | gpg --dearmor --yes -o {_KEYRING}
curl -fsSL {_REPOSITORY}/stable/deb/nvidia-container-toolkit.list \\
  | sed 's#deb https://#deb [signed-by={_KEYRING}] https://#' \\
  > /etc/apt/sources.list.d/nvidia-container-toolkit.list
apt-get update
apt-get install -y nvidia-container-toolkit
dpkg --compare-versions "$(dpkg-query -W -f '${{Version}}' nvidia-container-toolkit)" ge 1.18
""",
    )


def cdi() -> Step:
    """Return CDI specs that follow the driver."""
    return Step(
        title="CDI refresh",
        reason="a spec that is generated once goes stale with the next driver update; this service"
        " (toolkit 1.18 and later) writes it anew at each boot and each update.",
        script="""\
systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service
nvidia-ctk cdi list
""",
    )


def k3s(release: str, server: str) -> tuple[Step, ...]:
    """Return a K3s agent; its own containerd needs no configuration."""
    return (
        Step(
            title="runtime and agent: K3s",
            reason="last, because K3s looks for NVIDIA's runtime only when it starts, and then"
            " writes the handler into its containerd's configuration by itself. A config.toml.tmpl"
            " of your own would take that away.",
            files=(
                File(
                    path="/etc/rancher/k3s/config.yaml",
                    content=f"server: {server}\ntoken-file: {_TOKEN}\n",
                    reason=f"The token is a secret: add {_TOKEN} from where you keep secrets.",
                    mode="0600",
                ),
                File(
                    path="/etc/systemd/system/k3s-agent.service",
                    content=_K3S_UNIT,
                    reason="The CDI service comes first at each boot too.",
                ),
            ),
            script=f"""\
test -s {_TOKEN} || {{ echo '{_TOKEN} is missing' >&2; exit 1; }}
arch="$(dpkg --print-architecture)"
name=k3s
if [ "$arch" = arm64 ]; then name=k3s-arm64; fi
work="$(mktemp -d)"
cd "$work"
curl -fsSL -O '{_K3S}/{release}%2Bk3s1/'"$name"
curl -fsSL -o sums '{_K3S}/{release}%2Bk3s1/sha256sum-'"$arch.txt"
grep " $name\\$" sums | sha256sum --check --strict
install -m 0755 "$name" /usr/local/bin/k3s
cd / && rm -r "$work"
systemctl daemon-reload
systemctl enable --now k3s-agent
grep -q nvidia-container-runtime /var/lib/rancher/k3s/agent/etc/containerd/config.toml
""",
        ),
    )


def containerd() -> Step:
    """Return containerd with NVIDIA's handler and CDI, for kubeadm."""
    return Step(
        title="runtime: containerd with NVIDIA's handler",
        reason="after the toolkit, whose nvidia-ctk writes the handler, and before kubelet, which"
        " needs it. CDI is off in containerd 1.7 unless enable_cdi is set. runc stays the default"
        " runtime.",
        script="""\
apt-get install -y --no-install-recommends containerd
mkdir -p /etc/containerd
containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' \\
  > /etc/containerd/config.toml
nvidia-ctk runtime configure --runtime=containerd --cdi.enabled
systemctl enable containerd
systemctl restart containerd
containerd config dump | grep -q nvidia-container-runtime
""",
    )


def kubeadm(release: str) -> tuple[Step, ...]:
    """Return kubelet, its network plugins, and how the node joins."""
    return (
        Step(
            title="kubelet and kubeadm",
            reason="from dl.k8s.io, checked; swap off and forwarding on, as kubelet and pod"
            " networks ask.",
            files=(
                File(
                    path="/etc/modules-load.d/kubernetes.conf",
                    content="overlay\nbr_netfilter\n",
                    reason="Pod networks need both.",
                ),
                File(
                    path="/etc/sysctl.d/90-kubernetes.conf",
                    content="net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n",
                    reason="Pods are reached through the node.",
                ),
                File(
                    path="/etc/systemd/system/kubelet.service",
                    content=_KUBELET_UNIT,
                    reason="Restarted until kubeadm has written its configuration.",
                ),
            ),
            script=f"""\
swapoff -a
sed -i '/\\sswap\\s/s/^/#/' /etc/fstab
modprobe overlay
modprobe br_netfilter
sysctl --system
apt-get install -y --no-install-recommends conntrack ethtool iptables socat
arch="$(dpkg --print-architecture)"
work="$(mktemp -d)"
cd "$work"
for name in kubeadm kubelet kubectl; do
  curl -fsSL -O "{_KUBERNETES}/{release}/bin/linux/$arch/$name"
  sum="$(curl -fsSL "{_KUBERNETES}/{release}/bin/linux/$arch/$name.sha256")"
  echo "$sum  $name" | sha256sum --check --strict
  install -m 0755 "$name" "/usr/local/bin/$name"
done
plugins="cni-plugins-linux-$arch-{_CNI_VERSION}.tgz"
curl -fsSL -O "{_CNI}/{_CNI_VERSION}/$plugins"
curl -fsSL "{_CNI}/{_CNI_VERSION}/$plugins.sha256" | sha256sum --check --strict
mkdir -p /opt/cni/bin
tar -C /opt/cni/bin -xzf "$plugins"
cd / && rm -r "$work"
systemctl daemon-reload
systemctl enable kubelet
""",
        ),
        Step(
            title="agent: join the cluster",
            reason=f"last, so that the node is Ready only when GPUs can be used. {_JOIN} is a"
            " JoinConfiguration (kubeadm config print join-defaults) and holds the token: add it"
            " from where you keep secrets.",
            script=f"""\
test -s {_JOIN} || {{ echo '{_JOIN} is missing' >&2; exit 1; }}
kubeadm join --config {_JOIN}
""",
        ),
    )


def proof() -> Step:
    """Return what shows that it worked."""
    return Step(
        title="proof",
        reason="nothing else is to be installed on the node: gpudetour's agent is a DaemonSet"
        " (kubectl apply -f manifests/kubeadm.yaml) and finds the GPU by itself. If it does not"
        " come: gpudetour doctor --node NAME",
        script="""\
nvidia-smi -L
ls -l /dev/nvidiactl /dev/nvidia-uvm
nvidia-ctk cdi list
""",
    )


_K3S_UNIT = """\
[Unit]
Description=K3s agent
After=network-online.target nvidia-cdi-refresh.service
Wants=network-online.target

[Service]
Type=notify
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s agent
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s

[Install]
WantedBy=multi-user.target
"""

_KUBELET_UNIT = """\
[Unit]
Description=kubelet
After=network-online.target containerd.service nvidia-cdi-refresh.service
Wants=network-online.target

[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf\
 --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
"""

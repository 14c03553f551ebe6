"""What can be broken in the toolkit, the container runtime, CDI specs and kubelet's folder."""

from __future__ import annotations

from tests.doctor.cases import Case
from tests.doctor.nodes import (
    DRIVER,
    K3S,
    PLUGINS,
    RKE2,
    TOOLKIT_CONFIG,
    NodeTree,
    runtimes,
)

_CONTAINERD = "etc/containerd/config.toml"
_DROP_IN = "etc/containerd/conf.d/99-nvidia.toml"


def no_toolkit(node: NodeTree) -> NodeTree:
    return node.remove("usr/bin/nvidia-*")


CASES = (
    Case(
        name="the toolkit is not installed",
        on="rke2",
        break_it=lambda n: no_toolkit(n).write(f"{RKE2}/config.toml", "version = 2\n"),
        first="toolkit-installed",
        then=frozenset({"nvidia-handler"}),
        saw="nowhere on this node",
        mend="apt-get install -y nvidia-container-toolkit",
    ),
    Case(
        name="the toolkit was removed, its handler was not",
        on="kubeadm",
        break_it=no_toolkit,
        first="toolkit-installed",
        then=frozenset({"handler-binary"}),
        saw="nowhere on this node",
        mend="nvidia-container-toolkit",
    ),
    Case(
        name="the handler names a program that is elsewhere",
        on="kubeadm",
        break_it=lambda n: n.edit(_DROP_IN, "/usr/bin/nvidia-container-runtime", "/opt/nvidia-cr"),
        first="handler-binary",
        saw="/opt/nvidia-cr",
        mend="nvidia-ctk runtime configure",
    ),
    Case(
        name="the toolkit's configuration is no TOML",
        on="k3s",
        break_it=lambda n: n.write(TOOLKIT_CONFIG, "[[["),
        first="toolkit-config",
        saw=TOOLKIT_CONFIG,
        mend="nvidia-ctk config",
    ),
    Case(
        name="seed error 2: K3s without a runc of the system",
        on="k3s",
        break_it=lambda n: n.remove("usr/bin/runc"),
        first="toolkit-runc",
        saw="no runtime binary found from candidate list: [runc crun]",
        mend="/var/lib/rancher/k3s/data/current/bin/runc",
    ),
    Case(
        name="the toolkit looks for a driver container that is gone",
        on="kubeadm",
        break_it=lambda n: n.edit(
            TOOLKIT_CONFIG, "[nvidia-container-cli]", '[nvidia-container-cli]\nroot = "/run/x"'
        ),
        first="toolkit-root",
        saw="/run/x",
        mend="nvidia-container-cli.root=/",
    ),
    Case(
        name="the toolkit's ldconfig is another distribution's",
        on="kubeadm",
        break_it=lambda n: n.edit(TOOLKIT_CONFIG, 'ldconfig"', 'ldconfig.real"'),
        first="toolkit-ldconfig",
        saw="@/sbin/ldconfig.real",
        mend="ldconfig=@/sbin/ldconfig",
    ),
    Case(
        name="the toolkit's mode is misspelt",
        on="kubeadm",
        break_it=lambda n: n.edit(TOOLKIT_CONFIG, '"auto"', '"cdi-cri"'),
        first="toolkit-mode",
        saw="cdi-cri",
        mend="mode=auto",
    ),
    Case(
        name="seed error 3: mode cdi without a spec",
        on="k3s",
        break_it=lambda n: n.edit(TOOLKIT_CONFIG, '"auto"', '"cdi"'),
        first="cdi-present",
        saw="Found 0 CDI devices",
        mend="nvidia-cdi-refresh",
    ),
    Case(
        name="containerd's configuration is no TOML",
        on="kubeadm",
        break_it=lambda n: n.write(_CONTAINERD, "version = 2\n[plugins\n"),
        first="containerd-config",
        saw=_CONTAINERD,
        mend="containerd --config",
    ),
    Case(
        name="Docker's package switched CRI off",
        on="kubeadm",
        break_it=lambda n: n.edit(
            _CONTAINERD,
            "version = 2",
            'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]',
        ),
        first="containerd-cri",
        saw="disabled_plugins",
        mend="disabled_plugins = []",
    ),
    Case(
        name="a drop-in that nothing imports",
        on="kubeadm",
        break_it=lambda n: (
            n.write(_CONTAINERD, "version = 2\n")
            .write("etc/containerd/config.d/99-nvidia.toml", runtimes(2))
            .remove(_DROP_IN)
        ),
        first="containerd-imports",
        then=frozenset({"nvidia-handler"}),
        saw="/etc/containerd/config.d/99-nvidia.toml is not imported",
        mend="imports =",
    ),
    Case(
        name="K3s: the drop-in lies in the folder of the other template version",
        on="k3s",
        break_it=lambda n: n.write(
            f"{K3S}/config.toml", f"version = 3\nimports = ['/{K3S}/config-v3.toml.d/*.toml']\n"
        ).write(f"{K3S}/config.toml.d/nvidia.toml", runtimes(2)),
        first="containerd-imports",
        then=frozenset({"nvidia-handler", "k3s-restart"}),
        saw="drop-ins are in config-v3.toml.d",
        mend="config-v3.toml.d",
    ),
    Case(
        name="sections of version 2 in a file of version 3",
        on="k3s",
        break_it=lambda n: n.write(f"{K3S}/config.toml", f"version = 3\n{runtimes(2)}"),
        first="containerd-sections",
        then=frozenset({"nvidia-handler", "k3s-restart"}),
        saw="is of version 2, and the file is of version 3",
        mend="io.containerd.cri.v1.runtime/",
    ),
    Case(
        name="no version in the file, so its sections are ignored",
        on="kubeadm",
        break_it=lambda n: n.write(_CONTAINERD, runtimes(2)).remove(_DROP_IN),
        first="containerd-sections",
        then=frozenset({"nvidia-handler"}),
        saw="the file names no version",
        mend="1i version = 2",
    ),
    Case(
        name="a template of its own keeps NVIDIA's runtime out",
        on="k3s",
        break_it=lambda n: n.write(f"{K3S}/config.toml", "version = 2\n").write(
            f"{K3S}/config.toml.tmpl", "version = 2\n"
        ),
        first="k3s-template",
        then=frozenset({"nvidia-handler"}),
        saw="config.toml.tmpl",
        mend='{{ template "base" . }}',
    ),
    Case(
        name="K3s was started before the toolkit was installed",
        on="k3s",
        break_it=lambda n: n.write(f"{K3S}/config.toml", "version = 3\n"),
        first="k3s-restart",
        then=frozenset({"nvidia-handler"}),
        saw="only when it starts",
        mend="sudo systemctl restart k3s-agent",
    ),
    Case(
        name="nobody configured the handler",
        on="kubeadm",
        break_it=lambda n: n.remove(_DROP_IN),
        first="nvidia-handler",
        saw='no runtime named "nvidia"',
        mend="nvidia-ctk runtime configure --runtime=containerd",
    ),
    Case(
        name="the default runtime does not exist",
        on="kubeadm",
        break_it=lambda n: n.edit(
            _CONTAINERD,
            "enable_cdi = true",
            "enable_cdi = true\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\n"
            'default_runtime_name = "nvidia-legacy"\n',
        ),
        first="default-runtime",
        saw="nvidia-legacy",
        mend="restart containerd",
    ),
    Case(
        name="containerd was not restarted",
        on="kubeadm",
        break_it=lambda n: n.edit("proc/812/stat", "9999999999", "100"),
        first="runtime-restarted",
        saw="changed after containerd started",
        mend="sudo systemctl restart containerd",
    ),
    Case(
        name="gpudetour's CDI on a containerd 1.7 without CDI",
        on="kubeadm",
        break_it=lambda n: n.edit(_CONTAINERD, "enable_cdi = true", "enable_cdi = false").write(
            "var/run/cdi/gpudetour.io-gpu.json",
            '{"cdiVersion": "0.5.0", "kind": "gpudetour.io/gpu"}',
        ),
        first="cdi-enabled",
        saw="CDI is off in containerd 1.7.28",
        mend="enable_cdi = true",
    ),
    Case(
        name="a CDI spec that is no YAML",
        on="kubeadm",
        break_it=lambda n: n.write("etc/cdi/nvidia.yaml", "cdiVersion: [\n"),
        first="cdi-readable",
        saw="/etc/cdi/nvidia.yaml",
        mend="sudo rm /etc/cdi/nvidia.yaml",
    ),
    Case(
        name="a CDI spec of the driver before",
        on="kubeadm",
        break_it=lambda n: n.edit("etc/cdi/nvidia.yaml", DRIVER, "570.86.10"),
        first="cdi-stale",
        saw=f"written for driver 570.86.10, and {DRIVER} is loaded",
        mend="nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
    ),
    Case(
        name="a CDI spec names a device that is not there",
        on="kubeadm",
        break_it=lambda n: n.edit("etc/cdi/nvidia.yaml", "/dev/nvidia0", "/dev/nvidia7"),
        first="cdi-stale",
        saw="/dev/nvidia7, which does not exist",
        mend="nvidia-ctk cdi generate",
    ),
    Case(
        name="a CDI spec that is too new for containerd",
        on="kubeadm",
        break_it=lambda n: n.edit("etc/cdi/nvidia.yaml", "0.5.0", "0.7.0").edit(
            "var/lib/dpkg/status", "1.7.28", "1.7.12"
        ),
        first="cdi-version",
        saw="CDI version 0.7.0, and containerd 1.7.12 reads up to 0.6",
        mend="1.18",
    ),
    Case(
        name="a CDI device is described twice",
        on="kubeadm",
        break_it=lambda n: n.write(
            "etc/cdi/nvidia-2.yaml", (n.root / "etc/cdi/nvidia.yaml").read_text()
        ),
        first="cdi-conflict",
        saw="nvidia.com/gpu=0",
        mend="sudo rm /etc/cdi/nvidia-2.yaml",
    ),
    Case(
        name="kubelet's socket is gone",
        on="kubeadm",
        break_it=lambda n: n.remove(f"{PLUGINS}/kubelet.sock"),
        first="kubelet-socket",
        saw="kubelet.sock does not exist",
        mend="systemctl status kubelet",
    ),
    Case(
        name="kubelet's checkpoint is broken",
        on="k3s",
        break_it=lambda n: n.write(f"{PLUGINS}/kubelet_internal_checkpoint", '{"Data": 7'),
        first="kubelet-checkpoint",
        saw="kubelet_internal_checkpoint",
        mend="systemctl stop kubelet",
    ),
    Case(
        name="two plugins serve GPUs",
        on="kubeadm",
        break_it=lambda n: n.write(f"{PLUGINS}/hami-vgpu.sock"),
        first="two-plugins",
        saw="hami-vgpu.sock and nvidia-gpu.sock",
        mend="kubectl get daemonsets",
    ),
)

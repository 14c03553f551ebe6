"""What NVIDIA's device plugin, or the runtime that starts it, wrote: known texts and their causes.

Wordings of k8s-device-plugin 0.17 to 0.20, nvidia-container-toolkit and containerd. A text counts
only if the plugin did not register after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from doctor.checks.plugin import right_strategy
from doctor.facts.facts import Facts
from doctor.findings import Check, Need, Result, broken, ok, warning

_REGISTERED = "Registered device plugin for 'nvidia.com/gpu"
_PLUGIN = "NAMESPACE/nvidia-device-plugin-daemonset"
_SET_CLASS = (
    "helm upgrade nvdp nvdp/nvidia-device-plugin -n NAMESPACE --reuse-values"
    " --set runtimeClassName=nvidia",
    "# static manifest: spec.template.spec.runtimeClassName: nvidia; K3s: default-runtime: nvidia",
    "# avoid 0.18.0; or mount / at /driver-root with nvidiaDriverRoot=/ and privileged (0.18.1+)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """A text in a log, and what to say about it."""

    pattern: re.Pattern[str]
    mend: Callable[[re.Match[str], Facts], tuple[str, ...]]
    is_harmless: Callable[[Facts], str] = lambda _: ""
    tell: Callable[..., Result] = broken

    def look(self, facts: Facts) -> Result:
        log = facts.plugin_log or ""
        found = self.pattern.search(log, max(log.rfind(_REGISTERED), 0))
        if found is None:
            return ok("the log does not say so")
        if harmless := self.is_harmless(facts):
            return ok(harmless)
        return self.tell(_line(log, found), *self.mend(found, facts))


def _line(log: str, found: re.Match[str]) -> str:
    begin = log.rfind("\n", 0, found.start()) + 1
    end = log.find("\n", found.end())
    line = log[begin : end if end >= 0 else len(log)].strip()
    at = max(0, found.start() - begin - 60)
    return line if len(line) <= 220 else f"…{line[at : at + 200]}…"


def _always(*commands: str) -> Callable[[re.Match[str], Facts], tuple[str, ...]]:
    return lambda _found, _facts: commands


def _strategy(found: re.Match[str], facts: Facts) -> tuple[str, ...]:
    here = facts.plugins_here()
    return right_strategy(here[0].name if here else _PLUGIN, found[1] or found[2] or "")


def _without_gpu(facts: Facts) -> str:
    known = facts.host.was_read and facts.host.pci_was_read
    return "the node has no GPU, so the plugin is right" if known and not facts.has_gpu() else ""


def _without_need_of_cdi(facts: Facts) -> str:
    if not facts.host.was_read:
        return ""
    if facts.host.toolkit.setting("nvidia-container-runtime", "mode") == "cdi":
        return ""
    return "harmless: the toolkit is not in mode cdi, and needs no spec on disk"


_LOG = frozenset({Need.LOG})
_LIBRARY = ("gpu-present", "driver-loaded", "driver-library", "plugin-runtime-class",
            "plugin-version", "toolkit-environment", "toolkit-root", "nvidia-handler",
            "handler-binary", "runtimeclass-handler")  # fmt: skip

_INCOMPATIBLE = _Text(
    pattern=re.compile(
        r"Incompatible (?:platform|(?:device discovery )?strategy) detected"
        r"|invalid device discovery strategy"
        r"|ERROR_LIBRARY_NOT_FOUND"
        r"|could not load NVML library"
    ),
    mend=_always(*_SET_CLASS),
    is_harmless=_without_gpu,
)
_RUNC = _Text(
    pattern=re.compile(r"no runtime binary found from candidate list"),
    mend=_always(
        "sudo apt-get install -y runc  # or: dnf install runc",
        "# K3s: sudo nvidia-ctk config --in-place --set"
        " nvidia-container-runtime.runtimes=/var/lib/rancher/k3s/data/current/bin/runc",
    ),
)
_NO_CDI = _Text(
    pattern=re.compile(r"Found 0 CDI devices"),
    mend=_always(
        "# it matters only where the toolkit's mode is cdi, or the runtime is given CDI names",
        "sudo nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml",
        "sudo systemctl enable --now nvidia-cdi-refresh.path  # toolkit 1.18 and later",
    ),
    is_harmless=_without_need_of_cdi,
    tell=warning,
)
_STRATEGY = _Text(
    pattern=re.compile(
        r"invalid strategy: \"?([\w-]{1,40})"
        r"|invalid device-list-strategy[^\n]{0,80}?: \"?([\w-]{1,40})"
        r"|only supported on NVML-based systems"
    ),
    mend=_strategy,
)
_CONFIG = _Text(
    pattern=re.compile(
        r"no resources specified|error parsing config file|unable to (?:load|finalize) config"
        r"|unmarshal error"
    ),
    mend=_always(
        "kubectl -n NAMESPACE edit configmap CONFIGMAP",
        "# version: v1; delete an empty sharing: {timeSlicing: {}} block, or name its resources:",
        "#   sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}",
    ),
)
_GLIBC = _Text(
    pattern=re.compile(
        r"__tunable_is_initialized|symbol lookup error[^\n]*GLIBC_PRIVATE|version `GLIBC_"
    ),
    mend=_always(
        "kubectl -n NAMESPACE edit daemonset nvidia-device-plugin-daemonset",
        "# take out the hostPath mount of the library folder and LD_LIBRARY_PATH;"
        " runtimeClassName: nvidia brings the one library that is needed",
    ),
)
_MISMATCH = _Text(
    pattern=re.compile(r"[Dd]river/library version mismatch|LIB_RM_VERSION_MISMATCH"),
    mend=_always("sudo reboot  # the driver was updated under a loaded module"),
)
_DRIVER = _Text(
    pattern=re.compile(r"ERROR_DRIVER_NOT_LOADED|Driver Not Loaded|driver not loaded"),
    mend=_always("sudo modprobe nvidia", "sudo dmesg | grep NVRM"),
    is_harmless=_without_gpu,
)
_NO_HANDLER = _Text(
    pattern=re.compile(r"no runtime for \\?\"?nvidia\S* is configured"),
    mend=_always(
        "sudo nvidia-ctk runtime configure --runtime=containerd  # K3s, RKE2: only restart it",
        "sudo systemctl restart containerd  # or: k3s, k3s-agent, rke2-agent",
    ),
)
_UNRESOLVABLE = _Text(
    pattern=re.compile(r"unresolvable CDI devices? ?(\S*)"),
    mend=_always(
        "sudo nvidia-ctk cdi list",
        "sudo nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml",
    ),
)
_NO_DEVICES = _Text(
    pattern=re.compile(r"No devices found\. Waiting indefinitely|No devices were found"),
    mend=_always("nvidia-smi -L", "sudo dmesg | grep NVRM"),
    is_harmless=_without_gpu,
)
_REGISTRATION = _Text(
    pattern=re.compile(
        r"unknown service v1beta1\.Registration|[Cc]ould not register device plugin"
        r"|failed to dial device plugin|kubelet\.sock: (?:connect|no such)"
    ),
    mend=_always(
        "ls -l /var/lib/kubelet/device-plugins/kubelet.sock",
        "# mount the node's own folder there (MicroK8s, k0s keep it elsewhere)",
        "systemctl status kubelet k3s k3s-agent",
    ),
)
_PERMISSION = _Text(
    pattern=re.compile(r"ERROR_NO_PERMISSION|Insufficient Permissions"),
    mend=_always(
        "# the plugin's container needs securityContext.privileged: true, or CAP_SYS_ADMIN where"
        " MIG is used",
    ),
)
_UNHEALTHY = _Text(
    pattern=re.compile(r"XidCriticalError: Xid=[0-9]+|marked unhealthy"),
    mend=_always("sudo dmesg | grep 'NVRM: Xid'", "# then delete the plugin's pod on this node"),
    tell=warning,
)


CHECKS = (
    Check(
        id="log-runc",
        title="The log knows no missing runc",
        why="NVIDIA's runtime wraps runc or crun, and looks in PATH and the standard folders",
        look=_RUNC.look,
        needs=_LOG,
        causes=("toolkit-runc",),
    ),
    Check(
        id="log-no-handler",
        title="The log knows no missing handler",
        why="the RuntimeClass is there, and the node's runtime does not know its handler",
        look=_NO_HANDLER.look,
        needs=_LOG,
        causes=("nvidia-handler", "runtimeclass-handler"),
    ),
    Check(
        id="log-strategy",
        title="The log knows no invalid list strategy",
        why="the flag takes envvar, volume-mounts, cdi-annotations and cdi-cri only",
        look=_STRATEGY.look,
        needs=_LOG,
        causes=("plugin-list-strategy",),
    ),
    Check(
        id="log-config",
        title="The log knows no unreadable config",
        why="an empty sharing block is refused, although the plugin prints one itself",
        look=_CONFIG.look,
        needs=_LOG,
        causes=("plugin-config", "plugin-config-key"),
    ),
    Check(
        id="log-library-conflict",
        title="The log knows no clash of C libraries",
        why="the host's library folder was mounted into the plugin's container",
        look=_GLIBC.look,
        needs=_LOG,
        causes=("plugin-libraries",),
    ),
    Check(
        id="log-mismatch",
        title="The log knows no driver/library mismatch",
        why="the driver was updated and the old module still runs",
        look=_MISMATCH.look,
        needs=_LOG,
        causes=("driver-library-version",),
    ),
    Check(
        id="log-driver",
        title="The log knows no missing driver",
        why="the library is there, the kernel module is not",
        look=_DRIVER.look,
        needs=_LOG,
        causes=("gpu-present", "driver-loaded"),
    ),
    Check(
        id="log-incompatible-strategy",
        title="The log knows no incompatible strategy",
        why="the text means that libnvidia-ml.so.1 cannot be loaded inside the plugin's own"
        " container; neither K3s' containerd configuration nor the GPU model is the cause."
        " 0.20 words it as ERROR_LIBRARY_NOT_FOUND",
        look=_INCOMPATIBLE.look,
        needs=_LOG,
        causes=(*_LIBRARY, "log-library-conflict", "log-runc", "log-no-handler"),
    ),
    Check(
        id="log-no-devices",
        title="The log knows no wait for devices",
        why="a plugin that found none waits for ever and never looks again",
        look=_NO_DEVICES.look,
        needs=_LOG,
        causes=(
            "log-incompatible-strategy",
            "log-driver",
            "log-mismatch",
            "nvml",
            "gpu-initialised",
            "gpu-bound",
            *_LIBRARY,
        ),
    ),
    Check(
        id="log-permission",
        title="The log knows no missing permission",
        why="NVML refuses some questions to unprivileged containers",
        look=_PERMISSION.look,
        needs=_LOG,
    ),
    Check(
        id="log-registration",
        title="The log knows no failed registration",
        why="without kubelet's socket a plugin has nobody to offer devices to",
        look=_REGISTRATION.look,
        needs=_LOG,
        causes=("kubelet-socket",),
    ),
    Check(
        id="log-cdi-unresolvable",
        title="The log knows no unresolvable CDI device",
        why="the name that was handed over is in no spec that the runtime can read",
        look=_UNRESOLVABLE.look,
        needs=_LOG,
        causes=("cdi-readable", "cdi-present", "cdi-stale", "cdi-version", "cdi-conflict"),
    ),
    Check(
        id="log-cdi-none",
        title="The log knows no missing CDI spec that matters",
        why='"Found 0 CDI devices" is a plain line of nvidia-ctk, no fault by itself',
        look=_NO_CDI.look,
        needs=_LOG,
        causes=("cdi-present",),
    ),
    Check(
        id="log-unhealthy",
        title="The log knows no GPU that was called unhealthy",
        why="NVIDIA's plugin does not take it back until its pod is restarted",
        look=_UNHEALTHY.look,
        needs=_LOG,
    ),
)

"""NVIDIA's device plugin as it is deployed: where it goes wrong before it says so."""

from __future__ import annotations

from doctor import plugin_config, remedies
from doctor.checks.cluster import advertised, no_plugin_needed
from doctor.facts.cluster import Mount, Plugin
from doctor.facts.facts import Facts
from doctor.findings import Check, Need, Result, broken, not_applicable, ok, warning

PLUGIN_GPU = frozenset({Need.CLUSTER, Need.PLUGIN, Need.GPU})

_DISTROLESS = (0, 18, 0)
_FINDS_LIBRARY_BY_ROOT = (0, 18, 1)
_CONFIG_LABEL = "nvidia.com/device-plugin.config"
_PRESENT = "nvidia.com/gpu.present"
#: Folders of the dynamic linker in NVIDIA's images.
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
#: Below these the host keeps its own libc.so.6.
_HOST_LIBRARIES = ("/", "/lib", "/lib64", "/usr", "/usr/lib", "/usr/lib64",
                   "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
                   "/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu")  # fmt: skip
_RIGHT_WORD = {
    "nvml": "--device-discovery-strategy=nvml  # it is no way to list devices",
    "cdi": "--device-list-strategy=cdi-cri  # containerd 1.7 or later with CDI",
    "env": "--device-list-strategy=envvar",
    "auto": "--device-discovery-strategy=auto  # it is no way to list devices",
}


def _runtime_class(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        if plugin.runtime_class or _finds_library_itself(plugin) or advertised(facts):
            continue
        if facts.host.was_read:
            runtime = facts.host.runtime
            default = runtime.handlers.get(runtime.default)
            if default is not None and default.is_nvidia:
                continue
            why = f"the default runtime is {runtime.default or 'runc'}"
        else:
            why = "the default runtime of the node is hardly NVIDIA's"
        return broken(
            f"{plugin.name} has no runtimeClassName, and {why}: its container has no"
            " libnvidia-ml.so.1",
            remedies.patch_plugin(plugin.name, '{"runtimeClassName":"nvidia"}'),
            "# with Helm: --set runtimeClassName=nvidia",
        )
    return ok("its container gets NVIDIA's library")


def _finds_library_itself(plugin: Plugin) -> bool:
    """Tell whether it was given the host's root, as of 0.18.1 or with a fixed discovery."""
    roots = [mount for mount in plugin.mounts if mount.path.startswith("/driver-root")]
    told = plugin.version >= _FINDS_LIBRARY_BY_ROOT
    told = told or plugin.settings.get("device-discovery-strategy") == "nvml"
    return bool(roots) and plugin.is_privileged and told


def _version(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        if plugin.version[:3] != _DISTROLESS or advertised(facts):
            continue
        tell = broken if plugin.runtime_class else warning
        return tell(
            f"{plugin.name} runs 0.18.0, whose image cannot load NVIDIA's library on many nodes"
            " where 0.17.4 can (k8s-device-plugin#1469)",
            f"kubectl -n {plugin.name.partition('/')[0]} set image daemonset"
            f" {plugin.name.partition('/')[2]} '*={plugin.image.rpartition(':')[0]}:v0.18.1'",
        )
    return ok("no version that is known to fail")


def _list_strategy(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        told = plugin_config.words(plugin.settings.get("device-list-strategy", ""))
        named = [
            *told,
            *(w for c in plugin.configs.values() for w in plugin_config.list_strategies(c)),
        ]
        wrong = [word for word in named if word not in plugin_config.LIST_STRATEGIES]
        if wrong:
            return broken(
                f'{plugin.name}: invalid strategy: "{wrong[0][:40]}"'
                f" (known: {', '.join(plugin_config.LIST_STRATEGIES)})",
                *right_strategy(plugin.name, wrong[0]),
            )
    return ok("the device list strategy is a known one")


def right_strategy(name: str, wrong: str) -> tuple[str, ...]:
    """Say what was probably meant by a word that is no device list strategy."""
    namespace, _, daemonset = name.partition("/")
    right = _RIGHT_WORD.get(wrong, "--device-list-strategy=envvar")
    return (
        f"kubectl -n {namespace} edit daemonset {daemonset or 'nvidia-device-plugin-daemonset'}",
        f"# instead of --device-list-strategy={wrong[:40]} write  {right}",
    )


def _discovery_strategy(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        word = plugin.settings.get("device-discovery-strategy", "auto")
        if word not in plugin_config.DISCOVERY_STRATEGIES:
            return broken(
                f'{plugin.name}: unknown device discovery strategy "{word[:40]}"'
                f" (known: {', '.join(plugin_config.DISCOVERY_STRATEGIES)})",
                f"kubectl -n {plugin.name.partition('/')[0]} set env daemonset"
                f" {plugin.name.partition('/')[2]} DEVICE_DISCOVERY_STRATEGY=auto",
            )
    return ok("the device discovery strategy is a known one")


def _config(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        for key, document in plugin.configs.items():
            if found := plugin_config.faults(document):
                namespace = plugin.name.partition("/")[0]
                return broken(
                    f"{plugin.name}: config {key!r}: {'; '.join(found[:3])}",
                    f"kubectl -n {namespace} edit configmap {plugin.config_map}",
                    "# an empty sharing block comes from copying what the plugin prints: delete it",
                )
    return ok("its config files can be read")


def _config_key(facts: Facts) -> Result:
    wanted = facts.cluster.labels.get(_CONFIG_LABEL, "")
    for plugin in facts.plugins_here():
        namespace = plugin.name.partition("/")[0]
        if plugin.config_map_missing:
            return broken(
                f"{plugin.name} mounts the ConfigMap {plugin.config_map}, which does not exist",
                f"kubectl -n {namespace} get configmaps",
                f"kubectl -n {namespace} create configmap {plugin.config_map}"
                " --from-literal=default='version: v1'",
            )
        if wanted and plugin.configs and wanted not in plugin.configs:
            return broken(
                f"the node's label {_CONFIG_LABEL}={wanted} names no key of {plugin.config_map}"
                f" (keys: {', '.join(sorted(plugin.configs))})",
                f"kubectl label node {facts.cluster.node} --overwrite"
                f" {_CONFIG_LABEL}={min(plugin.configs)}",
            )
    return ok("the config that the node asks for exists")


def _libraries(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        mount = next(filter(_covers_libraries, plugin.mounts), None)
        mount = mount or next((m for m in plugin.mounts if _is_searched(m, plugin)), None)
        if mount is not None:
            return broken(
                f"{plugin.name} mounts the host's {mount.host_path} at {mount.path}, where its own"
                " programs look for libraries: two versions of libc do not mix",
                f"kubectl -n {plugin.name.partition('/')[0]} edit daemonset"
                f" {plugin.name.partition('/')[2]}  # take out that mount and LD_LIBRARY_PATH",
                "# use runtimeClassName: nvidia, or mount / at /driver-root read-only",
            )
    return ok("no library of the host covers those of its image")


def _covers_libraries(mount: Mount) -> bool:
    path = mount.path.rstrip("/")
    at_libraries = path in _LIBRARY_FOLDERS or any(
        path == f"{folder}/{arch}"
        for folder in ("/lib", "/usr/lib")
        for arch in ("x86_64-linux-gnu", "aarch64-linux-gnu")
    )
    return at_libraries and _has_libc(mount)


def _is_searched(mount: Mount, plugin: Plugin) -> bool:
    searched = [folder.rstrip("/") for folder in plugin.library_path.split(":") if folder]
    at = mount.path.rstrip("/")
    return _has_libc(mount) and any(
        folder == at or (folder.startswith(f"{at}/") and "lib" in folder) for folder in searched
    )


def _has_libc(mount: Mount) -> bool:
    return (mount.host_path.rstrip("/") or "/") in _HOST_LIBRARIES


def _affinity(facts: Facts) -> Result:
    if facts.plugins_here():
        return ok(f"{facts.plugins_here()[0].name} chooses this node")
    if no_plugin_needed(facts):
        return ok("NVIDIA's plugin leaves this node out, and gpudetour or DRA serves it")
    kept_off = [plugin for plugin in facts.cluster.plugins or () if plugin.mismatch]
    if not kept_off:
        return ok("labels are not what keeps it away")
    # Others may be meant for other nodes; one that runs nowhere is meant for all.
    plugin = min(kept_off, key=lambda each: each.desired)
    label = f"{_PRESENT}=true" if _PRESENT in plugin.mismatch else _first_label(plugin.mismatch)
    return broken(
        f"{plugin.name} (on {plugin.desired} nodes) leaves this node out: {plugin.mismatch[:200]}",
        f"kubectl label node {facts.cluster.node} {label}"
        if label
        else f"kubectl get node {facts.cluster.node} --show-labels",
        "# or install node-feature-discovery with deviceLabelFields: [vendor], which the plugin's"
        " chart expects",
    )


def _first_label(mismatch: str) -> str:
    return next((w for w in mismatch.split() if "=" in w and "|" not in w), "")


def _taints(facts: Facts) -> Result:
    kept_off = [p for p in facts.cluster.plugins or () if not p.mismatch and p.untolerated]
    if facts.plugins_here() or not kept_off or no_plugin_needed(facts):
        return ok("no taint keeps it away")
    taint = kept_off[0].untolerated
    key, _, effect = taint.partition("=")[0], "", taint.rpartition(":")[2]
    return broken(
        f"{kept_off[0].name} does not tolerate the node's taint {taint}",
        remedies.patch_plugin(
            kept_off[0].name,
            f'{{"tolerations":[{{"key":"{key}","operator":"Exists","effect":"{effect}"}},'
            '{"key":"nvidia.com/gpu","operator":"Exists"}]}',
        ),
    )


def _duplicate(facts: Facts) -> Result:
    names = [plugin.name for plugin in facts.plugins_here()]
    if len(names) < 2:
        return ok(f"{names[0] if names else 'none'} alone")
    operator = [plugin.name for plugin in facts.plugins_here() if plugin.is_of_operator]
    extra = next((name for name in names if name not in operator), names[-1])
    return broken(
        f"{' and '.join(names)} both run on this node",
        f"kubectl -n {extra.partition('/')[0]} delete daemonset {extra.partition('/')[2]}",
    )


def _pod(facts: Facts) -> Result:
    for plugin in facts.plugins_here():
        namespace = plugin.name.partition("/")[0]
        if plugin.pod is None:
            return broken(
                f"{plugin.name} has no pod on this node, though it chooses it",
                f"kubectl -n {namespace} describe daemonset {plugin.name.partition('/')[2]}",
            )
        if plugin.pod.waiting:
            return broken(
                f"pod {plugin.pod.name} waits: {plugin.pod.waiting}",
                f"kubectl -n {namespace} logs {plugin.pod.name} --previous",
                f"kubectl -n {namespace} describe pod {plugin.pod.name}",
            )
        if not plugin.pod.ready:
            return warning(
                f"pod {plugin.pod.name} is {plugin.pod.phase or 'not'} and not ready",
                f"kubectl -n {namespace} describe pod {plugin.pod.name}",
            )
    if not facts.plugins_here():
        return not_applicable("no plugin chooses this node")
    return ok("its pod runs")


CHECKS = (
    Check(
        id="plugin-affinity",
        title="NVIDIA's plugin chooses this node",
        why="its chart asks for labels that stock node-feature-discovery does not write: the"
        " DaemonSet then wants 0 pods and nobody complains",
        look=_affinity,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-taints",
        title="NVIDIA's plugin tolerates the node's taints",
        why="a DaemonSet skips nodes whose taints it does not tolerate",
        look=_taints,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-duplicate",
        title="One DaemonSet of NVIDIA's plugin is on the node",
        why="both register nvidia.com/gpu, and kubelet takes the last one",
        look=_duplicate,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-runtime-class",
        title="The plugin's own container gets NVIDIA's library",
        why='without it the plugin says "Incompatible strategy detected auto" and waits for ever;'
        " K3s and kubeadm leave runc the default, so the plugin needs the RuntimeClass itself",
        look=_runtime_class,
        needs=PLUGIN_GPU,
        causes=("gpu-present", "driver-loaded", "driver-library"),
    ),
    Check(
        id="plugin-version",
        title="The plugin's version works",
        why="0.18.0 came with an image in which the library cannot be loaded",
        look=_version,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-list-strategy",
        title="The plugin's device list strategy is one of its four words",
        why='"invalid strategy": how devices are listed is confused with how they are found',
        look=_list_strategy,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-discovery-strategy",
        title="The plugin's device discovery strategy is one of its words",
        why="it ends with an error otherwise",
        look=_discovery_strategy,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-config",
        title="The plugin can read its config file",
        why='"no resources specified": what the plugin prints cannot be fed back to it',
        look=_config,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-config-key",
        title="The config that the node asks for exists",
        why="the plugin's pod waits for a config that never comes",
        look=_config_key,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-libraries",
        title="No library folder of the host is mounted over the plugin's",
        why='"symbol lookup error … __tunable_is_initialized … GLIBC_PRIVATE": the image\'s linker'
        " loads the host's libc",
        look=_libraries,
        needs=PLUGIN_GPU,
    ),
    Check(
        id="plugin-pod",
        title="The plugin's pod runs",
        why="what it waits for is told by its events and its log",
        look=_pod,
        needs=PLUGIN_GPU,
        causes=(
            "node-ready",
            "plugin-config-key",
            "plugin-config",
            "plugin-list-strategy",
            "plugin-discovery-strategy",
            "plugin-libraries",
            "plugin-runtime-class",
            "plugin-version",
            "runtimeclass-present",
            "runtimeclass-handler",
            "nvidia-handler",
            "handler-binary",
            "toolkit-runc",
            "toolkit-config",
            "toolkit-root",
            "toolkit-ldconfig",
            "toolkit-mode",
            "driver-library-version",
            "log-strategy",
            "log-config",
            "log-library-conflict",
        ),
    ),
)

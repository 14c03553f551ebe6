"""NVIDIA's container toolkit: there, configured, safe, and able to find what it calls."""

from __future__ import annotations

from doctor import remedies
from doctor.checks.hardware import HOST_GPU
from doctor.facts.facts import Facts
from doctor.facts.host import Distribution
from doctor.findings import Check, Result, broken, not_applicable, ok, unknown, warning

_RUNTIME = "nvidia-container-runtime"
_CLI = "nvidia-container-cli"
_ENV_FLAG = "accept-nvidia-visible-devices-envvar-when-unprivileged"

#: Security fixes by the version that brought them, newest first (NVIDIA's security bulletins).
FIXES = (
    ((1, 17, 8), "CVE-2025-23266", "code of a container image runs as root on the node"),
    ((1, 17, 4), "CVE-2025-23359", "a crafted image reaches the node's file system"),
    ((1, 16, 2), "CVE-2024-0132", "a crafted image reaches the node's file system"),
)
#: Since then `swarm-resource` is honoured in the default mode too.
_SWARM_SINCE = (1, 19)
_SETTING_OFF = {
    "allow-cuda-compat-libs-from-container": "libraries of the image are loaded by the hook",
    "allow-ldconfig-from-container": "the image's own ldconfig is run",
}


def is_needed(facts: Facts) -> bool:
    """Tell whether containers get GPUs through NVIDIA's runtime here.

    Not where gpudetour's agent hands them over by CDI and nothing refers to that runtime.
    """
    refers = bool(facts.host.runtime.nvidia()) or bool(facts.plugins_here())
    return refers or not facts.own_cdi() or facts.path() == "annotation"


def _installed(facts: Facts) -> Result:
    toolkit = facts.host.toolkit
    if path := toolkit.binaries.get(_RUNTIME):
        version = ".".join(map(str, toolkit.version))
        return ok(f"{path} {version}".strip())
    if not is_needed(facts):
        return ok("not installed, and not needed: gpudetour hands GPUs over by CDI")
    return broken(
        f"{_RUNTIME} is nowhere on this node",
        *remedies.install_toolkit(facts.host),
        *remedies.configure_runtime(facts.host),
    )


def _config(facts: Facts) -> Result:
    toolkit = facts.host.toolkit
    if not toolkit.config_fault:
        return ok(toolkit.config_path if toolkit.config else "defaults")
    return broken(
        f"{toolkit.config_path}: {toolkit.config_fault}",
        f"sudo cp {toolkit.config_path} {toolkit.config_path}.old",
        f"sudo nvidia-ctk config --config-file=/dev/null | sudo tee {toolkit.config_path}",
    )


def _low_level(facts: Facts) -> Result:
    host = facts.host
    if not host.toolkit.binaries.get(_RUNTIME):
        return not_applicable("the toolkit is not installed")
    found = next((path for path in host.toolkit.low_level.values() if path), "")
    if found:
        return ok(found)
    names = " ".join(host.toolkit.low_level)
    if host.runtime.path_is_hidden:
        return unknown(
            f"none of [{names}] in the standard folders; the PATH of {host.runtime.kind} is closed",
            "sudo gpudetour doctor",
        )
    mend = ["sudo apt-get install -y runc  # or: dnf install runc"]
    if host.distribution in (Distribution.K3S, Distribution.RKE2):
        data = f"/var/lib/rancher/{host.distribution.lower()}/data/current/bin/runc"
        mend.append(
            "# or point to the one that it brings: sudo nvidia-ctk config --in-place"
            f" --set nvidia-container-runtime.runtimes={data}"
        )
    return broken(f"no runtime binary found from candidate list: [{names}]", *mend)


def _version(facts: Facts) -> Result:
    toolkit = facts.host.toolkit
    if not toolkit.binaries:
        return not_applicable("the toolkit is not installed")
    if not toolkit.version:
        return unknown("the toolkit's version could not be read", "nvidia-ctk --version")
    version = ".".join(map(str, toolkit.version))
    for fixed, name, what in FIXES:
        if toolkit.version < fixed:
            return warning(
                f"toolkit {version} has {name} (fixed in {'.'.join(map(str, fixed))}): {what}",
                *remedies.install_toolkit(facts.host),
            )
    return ok(f"toolkit {version} has all fixes known to this release")


def _root(facts: Facts) -> Result:
    root = facts.host.toolkit.setting(_CLI, "root")
    if not isinstance(root, str):
        return ok("the driver's root is the node's own")
    if facts.host.toolkit.has_root:
        return ok(f"the driver's root {root} is there")
    return broken(
        f"{facts.host.toolkit.config_path} has root = {root!r}, which does not exist: left behind"
        " by an operator whose driver container is gone",
        "sudo nvidia-ctk config --in-place --set nvidia-container-cli.root=/",
    )


def _ldconfig(facts: Facts) -> Result:
    ldconfig = facts.host.toolkit.setting(_CLI, "ldconfig")
    if facts.host.toolkit.has_ldconfig:
        return ok(str(ldconfig or "default")[:100])
    return broken(
        f"{facts.host.toolkit.config_path} has ldconfig = {ldconfig!r}, which does not exist here",
        "sudo nvidia-ctk config --in-place --set nvidia-container-cli.ldconfig=@/sbin/ldconfig",
    )


def _environment(facts: Facts) -> Result:
    if facts.host.toolkit.setting(_ENV_FLAG) is not False:
        return ok("NVIDIA_VISIBLE_DEVICES is honoured in unprivileged containers")
    plugins = [
        plugin.name
        for plugin in facts.plugins_here()
        if plugin.settings.get("device-list-strategy", "envvar") == "envvar"
    ]
    who = plugins[0] if plugins else "gpudetour's annotation path"
    if not plugins and facts.path() != "annotation":
        return ok("NVIDIA_VISIBLE_DEVICES is ignored in unprivileged containers, as hardening asks")
    return broken(
        f"{_ENV_FLAG} = false, and {who} hands GPUs over by that variable",
        f"sudo nvidia-ctk config --in-place --set {_ENV_FLAG}=true",
        "# or hand them over by CDI: --device-list-strategy=cdi-cri, or gpudetour's plugin path",
    )


def _mode(facts: Facts) -> Result:
    toolkit = facts.host.toolkit
    mode = toolkit.setting("nvidia-container-runtime", "mode")
    if mode in (None, "auto", "jit-cdi", "legacy", "csv", "cdi"):
        return ok(f"mode {mode or 'auto'}")
    return broken(
        f"{toolkit.config_path} has mode = {str(mode)[:60]!r}, which the toolkit does not know",
        "sudo nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto",
    )


def _swarm(facts: Facts) -> Result:
    toolkit = facts.host.toolkit
    name = toolkit.setting("swarm-resource")
    if not name:
        return ok("swarm-resource is not set")
    is_legacy = toolkit.setting("nvidia-container-runtime", "mode") == "legacy"
    if toolkit.version >= _SWARM_SINCE or is_legacy:
        return ok(f"swarm-resource = {str(name)[:60]!r}, which this toolkit honours")
    return warning(
        f"swarm-resource = {str(name)[:60]!r} is ignored before 1.19 except in legacy mode: the"
        " image's NVIDIA_VISIBLE_DEVICES=all then gives every GPU",
        *remedies.install_toolkit(facts.host),
    )


def _features(facts: Facts) -> Result:
    features = [
        (name, why)
        for name, why in _SETTING_OFF.items()
        if facts.host.toolkit.setting("features", name) is True
    ]
    if not features:
        return ok("no feature that trusts images")
    name, why = features[0]
    return warning(
        f"features.{name} = true: {why}",
        f"sudo nvidia-ctk config --in-place --set features.{name}=false",
    )


CHECKS = (
    Check(
        id="toolkit-installed",
        title="NVIDIA's container toolkit is installed",
        why="its runtime puts devices and libraries into containers",
        look=_installed,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-config",
        title="The toolkit's config.toml can be read",
        why="with a syntax error in it no container of that runtime starts",
        look=_config,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-runc",
        title="The toolkit finds runc",
        why='it only wraps runc; without it: "error locating runtime: no runtime binary found from'
        ' candidate list: [runc crun]". K3s keeps its runc where nobody else looks',
        look=_low_level,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-version",
        title="The toolkit has its security fixes",
        why="GPU nodes run images of many people, and these faults give an image the node",
        look=_version,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-root",
        title="The toolkit looks for the driver where it is",
        why="it mounts libraries from below that root",
        look=_root,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-ldconfig",
        title="The toolkit's ldconfig exists",
        why="Ubuntu has ldconfig.real, others ldconfig only; copied files name the wrong one",
        look=_ldconfig,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-environment",
        title="The toolkit honours the way in which GPUs are handed over",
        why="where the variable is ignored, containers start without any GPU",
        look=_environment,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-mode",
        title="The toolkit's mode is a known one",
        why="with an unknown mode no container of that runtime starts",
        look=_mode,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-swarm-resource",
        title="swarm-resource does what it says",
        why="a setting that is silently ignored opens what it was to close",
        look=_swarm,
        needs=HOST_GPU,
    ),
    Check(
        id="toolkit-features",
        title="No toolkit feature trusts images",
        why="these features load code of the image as root",
        look=_features,
        needs=HOST_GPU,
    ),
)

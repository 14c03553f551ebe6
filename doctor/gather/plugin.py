"""NVIDIA's device plugin as its DaemonSet describes it. Decoding only; the objects are given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from doctor.affinity import Selection, mismatch, untolerated
from doctor.facts.cluster import Mount, Plugin
from doctor.facts.facts import version_of
from doctor.shapes import mapping, mappings, text, texts
from kube.objects import Taint

_IMAGE = re.compile(
    r"(?:k8s-device-plugin|nvidia-device-plugin|nvidia-gpu-device-plugin)(?=[:@]|$)"
)
#: Programs of the same image that are no device plugin.
_OTHERS = ("gpu-feature-discovery", "config-manager", "mps-control-daemon")
#: Flags by their variables (k8s-device-plugin cmd/nvidia-device-plugin/main.go).
VARIABLES = {
    "MIG_STRATEGY": "mig-strategy",
    "FAIL_ON_INIT_ERROR": "fail-on-init-error",
    "NVIDIA_DRIVER_ROOT": "nvidia-driver-root",
    "DEVICE_LIST_STRATEGY": "device-list-strategy",
    "DEVICE_DISCOVERY_STRATEGY": "device-discovery-strategy",
    "DEVICE_ID_STRATEGY": "device-id-strategy",
    "PASS_DEVICE_SPECS": "pass-device-specs",
    "CONFIG_FILE": "config-file",
}
_OPERATOR = "gpu-operator"


def is_plugin(daemonset: Mapping[str, Any]) -> bool:
    """Tell whether a DaemonSet runs NVIDIA's device plugin."""
    return any(_is_plugin_container(c) for c in _containers(_pod_spec(daemonset)))


def config_maps(daemonset: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the ConfigMaps that a plugin's pods mount."""
    volumes = mappings(_pod_spec(daemonset).get("volumes"))
    named = (text(mapping(volume.get("configMap")).get("name")) for volume in volumes)
    return tuple(name for name in named if name)


def decode_plugin(
    daemonset: Mapping[str, Any],
    *,
    labels: Mapping[str, str],
    taints: tuple[Taint, ...],
    node: str,
) -> Plugin:
    """Return the facts of one DaemonSet with regard to a node; pod and ConfigMaps left out."""
    metadata, spec = mapping(daemonset.get("metadata")), _pod_spec(daemonset)
    container = next(filter(_is_plugin_container, _containers(spec)), {})
    image = text(container.get("image"))
    variables = dict(_variables(container))
    security = mapping(container.get("securityContext"))
    added = mapping(security.get("capabilities")).get("add")
    settings = {flag: variables[name] for name, flag in VARIABLES.items() if name in variables}
    return Plugin(
        name=f"{text(metadata.get('namespace'))}/{text(metadata.get('name'))}",
        image=image,
        version=version_of(image.partition("@")[0].rpartition(":")[2]),
        settings={**settings, **_arguments(container)},
        runtime_class=text(spec.get("runtimeClassName")),
        is_privileged=security.get("privileged") is True
        or (isinstance(added, list) and any(each in ("SYS_ADMIN", "ALL") for each in added)),
        mounts=tuple(_host_mounts(spec, container)),
        library_path=variables.get("LD_LIBRARY_PATH", ""),
        preload=variables.get("LD_PRELOAD", ""),
        config_map=next(iter(config_maps(daemonset)), ""),
        mismatch=mismatch(Selection.of(spec), labels, node=node),
        untolerated=untolerated(mappings(spec.get("tolerations")), taints),
        desired=_count(mapping(daemonset.get("status")).get("desiredNumberScheduled")),
        is_of_operator=_OPERATOR in str(metadata.get("ownerReferences")).lower()
        or _OPERATOR in text(mapping(metadata.get("labels")).get("app.kubernetes.io/managed-by"))
        or "clusterpolicy" in str(metadata.get("ownerReferences")).lower(),
    )


def selector(daemonset: Mapping[str, Any]) -> str:
    """Return the label selector of a DaemonSet's pods, as a query parameter."""
    chosen = mapping(mapping(daemonset.get("spec")).get("selector")).get("matchLabels")
    return ",".join(f"{key}={value}" for key, value in sorted(mapping(chosen).items()))


def _is_plugin_container(container: Mapping[str, Any]) -> bool:
    program = " ".join(texts(container.get("command")) + texts(container.get("args")))
    is_image = _IMAGE.search(text(container.get("image"))) is not None
    return is_image and not any(other in program for other in _OTHERS)


def _pod_spec(daemonset: Mapping[str, Any]) -> Mapping[str, Any]:
    template = mapping(mapping(daemonset.get("spec")).get("template"))
    return mapping(template.get("spec"))


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return mappings(spec.get("containers"))


def _arguments(container: Mapping[str, Any]) -> dict[str, str]:
    """Return flags written as `--name=value` or `--name value`; a bare one is `true`."""
    words = texts(container.get("command")) + texts(container.get("args"))
    found: dict[str, str] = {}
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = following if following and not following.startswith("-") else "true"
        found[name] = value
    return found


def _variables(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for entry in mappings(container.get("env")):
        if (name := text(entry.get("name"))) and isinstance(entry.get("value"), str):
            yield name, entry["value"]


def _host_mounts(spec: Mapping[str, Any], container: Mapping[str, Any]) -> Iterator[Mount]:
    paths = {
        text(volume.get("name")): text(mapping(volume.get("hostPath")).get("path"))
        for volume in mappings(spec.get("volumes"))
    }
    for mount in mappings(container.get("volumeMounts")):
        if path := paths.get(text(mount.get("name"))):
            yield Mount(host_path=path, path=text(mount.get("mountPath")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

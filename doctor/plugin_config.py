"""Reads a config file of NVIDIA's device plugin as the plugin would, and says why it would not.

Rules from k8s-device-plugin api/config/v1 (config.go, replicas.go, strategy.go). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from doctor.shapes import mapping, mappings, text

LIST_STRATEGIES = ("envvar", "volume-mounts", "cdi-annotations", "cdi-cri")
DISCOVERY_STRATEGIES = ("auto", "nvml", "tegra")
_SECTIONS = ("version", "flags", "resources", "sharing", "imex", "health")
#: What each kind of sharing must hold.
_SHARING = ("timeSlicing", "mps")
_MOST_NAME = 63


def faults(document: str) -> tuple[str, ...]:
    """Return what the plugin would refuse in a config file, in the words of its own fields."""
    try:
        config = yaml.safe_load(document)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return (f"it is no YAML: {' '.join(str(error).split())[:160]}",)
    if not isinstance(config, Mapping):
        return ("it is no mapping",)
    return tuple(_faults(config))


def list_strategies(document: str) -> tuple[str, ...]:
    """Return the words of `deviceListStrategy` in a config file, none where it is not set."""
    try:
        config = yaml.safe_load(document)
    except (yaml.YAMLError, ValueError, RecursionError):
        return ()
    plugin = mapping(mapping(mapping(config).get("flags")).get("plugin"))
    value = plugin.get("deviceListStrategy")
    if isinstance(value, list):
        return tuple(str(word) for word in value)
    return words(value) if isinstance(value, str) else ()


def words(value: str) -> tuple[str, ...]:
    """Split a flag that takes several words."""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("version") != "v1":
        yield f"version is {str(config.get('version'))[:40]!r}, and must be v1"
    for name in config:
        if name not in _SECTIONS:
            yield f"{str(name)[:40]!r} is no section of it (known: {', '.join(_SECTIONS)})"
    if "sharing" in config:
        yield from _sharing_faults(config["sharing"])


def _sharing_faults(sharing: Any) -> Iterator[str]:
    for kind in _SHARING:
        if kind not in mapping(sharing):
            continue
        resources = mapping(mapping(sharing)[kind]).get("resources")
        if not isinstance(resources, list) or not resources:
            yield f"sharing.{kind} names no resources: no resources specified"
        for resource in mappings(resources):
            yield from _resource_faults(f"sharing.{kind}", resource)
    if all(kind in mapping(sharing) for kind in _SHARING):
        yield "sharing has timeSlicing and mps; it can have one of them"


def _resource_faults(where: str, resource: Mapping[str, Any]) -> Iterator[str]:
    name = text(resource.get("name"))
    if not name:
        yield f"{where}: a resource has no name"
    elif "/" in name and not name.startswith("nvidia.com/"):
        yield f"{where}: {name[:80]} does not begin with nvidia.com/"
    elif len(name.rpartition("/")[2]) > _MOST_NAME:
        yield f"{where}: {name[:80]} is longer than {_MOST_NAME} characters"
    replicas = resource.get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 2:
        of = name[:80] or "a resource"
        yield f"{where}: replicas of {of} is {str(replicas)[:20]}, and must be 2 or more"

"""Which devices the NVIDIA runtime shows each container: one environment variable, set last.

Explicit `env` wins over `envFrom` and over the image, and of two entries with one name the later
wins (kubelet, makeEnvironmentVariables), so a single last entry decides. Its values are those of
the NVIDIA container toolkit (docs "Environment variables", `NVIDIA_VISIBLE_DEVICES`).

One way past it cannot be closed here: where a device plugin answers with that variable, its value
reaches the container below everything that the pod says, and our entry is missing on purpose. An
`envFrom` whose source has the variable is then read instead. Answering with CDI devices closes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpus.annotations import DEVICES_CONFIG_MAP_NAME
from webhook.shape import Raw

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"
#: The runtime behaves as runc: nothing is injected.
VOID = "void"

#: Every way of the toolkit to ask for devices, none of which goes through a request.
_DEVICE_VARIABLES = frozenset(
    {
        VISIBLE_DEVICES,
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
    }
)
#: Names that the toolkit may be told to read in place of `VISIBLE_DEVICES` (`swarm-resource`).
_SWARM = "DOCKER_RESOURCE_"


def void() -> Raw:
    """Return the entry of a container that gets no device."""
    return {"name": VISIBLE_DEVICES, "value": VOID}


def devices_from(config_map: str, container: str) -> Raw:
    """Return the entry of a container whose devices a ConfigMap will name.

    `optional`, because where kubelet hands out the devices there is no ConfigMap, and then the
    device plugin's own value must reach the container untouched.
    """
    reference = {"name": config_map, "key": container, "optional": True}
    return {"name": VISIBLE_DEVICES, "valueFrom": {"configMapKeyRef": reference}}


def all_with_devices(found: list[Raw], entries: Mapping[str, Raw]) -> tuple[list[Raw], list[str]]:
    """Return containers with the last and only word on devices, and warnings of what they said.

    `entries` holds that word by name of container; it is `void` where there is none.
    """
    changed: list[Raw] = []
    warnings: list[str] = []
    for container in found:
        entry = entries.get(container["name"]) or void()
        env: list[Raw] = container.get("env") or []
        said = [one for one in env if _asks_for_devices(one["name"])]
        if said != [entry] or env[-1] != entry:
            warnings += _overruled(container["name"], said, entry)
            kept = [one for one in env if not _asks_for_devices(one["name"])] if said else env
            container = {**container, "env": [*kept, entry]}
        changed.append(container)
    return changed, warnings


def _overruled(container: str, said: list[Raw], entry: Raw) -> Iterator[str]:
    """Yield a warning for each device variable of the user's that is dropped."""
    for one in said:
        if one != entry and not _generated(one):
            yield (
                f"container {container!r}: env {one['name'][:64]} was overruled, "
                "devices are given by request only"
            )


def _asks_for_devices(variable: str) -> bool:
    return variable in _DEVICE_VARIABLES or variable.startswith(_SWARM)


def _generated(entry: Raw) -> bool:
    """Tell whether an entry is one of ours, in a pod that was copied from another."""
    source: Any = entry.get("valueFrom")
    reference = source.get("configMapKeyRef") if isinstance(source, dict) else None
    name = reference.get("name") if isinstance(reference, dict) else None
    return isinstance(name, str) and DEVICES_CONFIG_MAP_NAME.fullmatch(name) is not None

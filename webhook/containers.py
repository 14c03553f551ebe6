"""Which devices the NVIDIA runtime shows each container: one environment variable, set last.

Explicit `env` wins over `envFrom` and over the image, and of two entries with one name the later
wins (kubelet, makeEnvironmentVariables), so a single last entry decides. Its values are those of
the NVIDIA container toolkit (docs "Environment variables", `NVIDIA_VISIBLE_DEVICES`).
"""

from __future__ import annotations

from collections.abc import Iterator

from webhook.shape import Raw

VISIBLE_DEVICES = "NVIDIA_VISIBLE_DEVICES"
#: The runtime behaves as runc: nothing is injected.
VOID = "void"

#: Further ways of the toolkit to ask for devices, none of which goes through a request.
_OTHER_DEVICE_VARIABLES = frozenset(
    {"NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_IMEX_CHANNELS"}
)
_DEVICE_VARIABLES = _OTHER_DEVICE_VARIABLES | {VISIBLE_DEVICES}


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


def with_devices(container: Raw, entry: Raw) -> Raw:
    """Return the container with `entry` as the last and only word on devices."""
    kept = [env for env in container.get("env") or () if env["name"] not in _DEVICE_VARIABLES]
    return {**container, "env": [*kept, entry]}


def overruled(container: Raw, entry: Raw) -> Iterator[str]:
    """Yield the name of each device variable that `with_devices` drops; ours is not one."""
    for env in container.get("env") or ():
        if env["name"] in _DEVICE_VARIABLES and env != entry:
            yield env["name"]

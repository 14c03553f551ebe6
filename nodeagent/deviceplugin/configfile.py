"""NVIDIA's own configuration file of its device plugin, version v1, read as it is.

Every setting is either honoured, or accepted because it changes nothing here (`_NO_EFFECT`: it
concerns NVIDIA's own processes), or refused with the reason; none is passed over. Format:
k8s-device-plugin api/config/v1.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gpus.demand import MAX_COUNT
from gpus.model import GPU_RESOURCE, MIG_RESOURCE_PREFIX, ResourceName
from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.devices import MigStrategy, Offering, Slicing

_VENDOR = "nvidia.com/"
_SHARED = ".shared"
#: `sharing.timeSlicing.resources` is the deepest; more is no such file.
_MOST_LEVELS = 4
#: Bytes of a ConfigMap.
_LARGEST = 1 << 20

_Check = Callable[[Any], str | None]


class ConfigFileError(ValueError):
    """The file asks for what cannot be had here; the text holds every reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """What the file says, as far as it matters here; None where it is silent."""

    offering: Offering = field(default_factory=Offering)
    #: None: the runtime decides, which is also meant by naming both ways.
    device_list: DeviceList | None = None
    pass_device_nodes: bool = False
    #: Paths on the host.
    driver_root: str | None = None
    dev_root: str | None = None
    #: Settings that were accepted because they change nothing here.
    no_effect: tuple[str, ...] = ()


def load_config(path: Path) -> PluginConfig:
    """Read the file at `path`; raises `ConfigFileError`."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigFileError(f"{path}: {error.strerror or error}") from error
    if len(text) > _LARGEST:
        raise ConfigFileError(f"{path}: it is larger than {_LARGEST} bytes")
    try:
        return read_config(text)
    except ConfigFileError as error:
        raise ConfigFileError(f"{path}: {error}") from error


def read_config(text: str | bytes) -> PluginConfig:
    """Read the file's text; raises `ConfigFileError` with all faults at once."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        raise ConfigFileError(f"it is neither YAML nor JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigFileError("it holds no settings; it must begin with `version: v1`")
    values: dict[str, Any] = {}
    faults = [fault for fault in _leaves(document, values) if fault]
    if "version" not in values:
        faults.append("version: it is missing; write `version: v1`")
    for name, value in values.items():
        if fault := _CHECKS[name](value):
            faults.append(f"{name}: {fault}")
    if faults:
        raise ConfigFileError("; ".join(faults))
    return _config(values)


def _leaves(
    section: Mapping[Any, Any], values: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[str]:
    """Collect the settings by their dotted names; yields a fault for each unknown one."""
    for key, value in section.items():
        steps = (*path, str(key))
        name = ".".join(steps)
        if value is None:
            continue
        if name in _CHECKS:
            values[name] = value
        elif isinstance(value, dict) and len(steps) < _MOST_LEVELS and _is_section(name):
            yield from _leaves(value, values, steps)
        else:
            yield f"{name[:128]}: it is not a setting of version v1"


def _is_section(name: str) -> bool:
    return any(known.startswith(f"{name}.") for known in _CHECKS)


def _config(values: Mapping[str, Any]) -> PluginConfig:
    """Make sense of values that have passed their checks."""
    slicing = "sharing.timeSlicing."
    rename = values.get(f"{slicing}renameByDefault", False)
    one = values.get(f"{slicing}failRequestsGreaterThanOne", False)
    sliced = {
        _resource(entry["name"]): Slicing(
            replicas=entry["replicas"],
            shown_as=ResourceName(_shown_as(entry, rename=rename)),
            one_at_a_time=one,
        )
        for entry in values.get(f"{slicing}resources", ())
    }
    strategies = values.get("flags.plugin.deviceListStrategy", ())
    ways = {_DEVICE_LISTS[each] for each in _listed(strategies)}
    return PluginConfig(
        offering=Offering(
            # NVIDIA's default, not ours: the file is to mean what it means there.
            mig=MigStrategy(values.get("flags.migStrategy", MigStrategy.NONE)),
            slicing=sliced,
            packed=values.get("flags.plugin.sharedDevicesAllocationPolicy") == "packed",
        ),
        device_list=ways.pop() if len(ways) == 1 else None,
        pass_device_nodes=values.get("flags.plugin.passDeviceSpecs", False),
        driver_root=values.get("flags.nvidiaDriverRoot"),
        dev_root=values.get("flags.nvidiaDevRoot"),
        no_effect=tuple(name for name in values if name in _NO_EFFECT),
    )


def _shown_as(entry: Mapping[str, Any], *, rename: bool) -> str:
    name = _resource(entry["name"])
    if entry.get("rename") is not None:
        return _resource(entry["rename"])
    return name + _SHARED if rename else name


def _resource(name: str) -> ResourceName:
    return ResourceName(name if name.startswith(_VENDOR) else _VENDOR + name)


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


# What values each setting may have: a check returns what is wrong, or None.


def _one_of(*allowed: object, because: str = "") -> _Check:
    def check(value: Any) -> str | None:
        if any(value is each or (isinstance(each, str) and value == each) for each in allowed):
            return None
        return f"{_shown(value)} {because or 'is not allowed; write ' + _choices(allowed)}"

    return check


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"{_shown(value)} is no text"


def _absolute(value: Any) -> str | None:
    if isinstance(value, str) and value.startswith("/"):
        return None
    return f"{_shown(value)} is not an absolute path"


def _duration(value: Any) -> str | None:
    return None if isinstance(value, str | int) else f"{_shown(value)} is no duration"


def _device_lists(value: Any) -> str | None:
    if not isinstance(value, str | list) or not value:
        return f"{_shown(value)} is no list of strategies"
    for each in _listed(value):
        if not isinstance(each, str) or each not in _DEVICE_LISTS:
            return f"{_shown(each)} is not served here; write {_choices(tuple(_DEVICE_LISTS))}"
    return None


def _empty(because: str) -> _Check:
    return lambda value: None if value in ([], {}) else because


def _usual_names(value: Any) -> str | None:
    """Resources keep their names: quota, scheduler and policies know the usual ones only."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        return f"{_shown(value)} is no list of patterns and names"
    entries = [(str(each.get("pattern", "")), str(each.get("name", ""))) for each in value]
    strange = [name for pattern, name in entries if not _is_usual(pattern, _resource(name))]
    return f"resources cannot be renamed, here to {_shown(strange[0])}" if strange else None


def _is_usual(pattern: str, name: ResourceName) -> bool:
    of_profile = MIG_RESOURCE_PREFIX + pattern.replace("+", ".")
    return name in (GPU_RESOURCE, of_profile)


def _sliced_resources(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"{_shown(value)} is no list of resources"
    faults = [fault for entry in value if (fault := _sliced_resource(entry))]
    names = [entry["name"] for entry in value if not _sliced_resource(entry)]
    if len(set(map(_resource, names))) != len(names):
        faults.append("a resource is named twice")
    return ", ".join(faults) or None


def _sliced_resource(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return f"{_shown(entry)} has no name"
    name, replicas = _resource(entry["name"]), entry.get("replicas")
    if name != GPU_RESOURCE and not name.startswith(MIG_RESOURCE_PREFIX):
        return f"{name[:64]} is no resource that is served here"
    if unknown := [str(key) for key in entry if key not in _SLICED_KEYS]:
        return f"{name}: {unknown[0][:64]} is not a setting of version v1"
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        return f"{name}: replicas must be a number"
    if not 2 <= replicas <= MAX_COUNT:
        return f"{name}: replicas must be 2 to {MAX_COUNT}, not {replicas}"
    if entry.get("devices") not in (None, "all"):
        return f"{name}: only all devices can be sliced, as in NVIDIA's plugin"
    rename = entry.get("rename")
    if rename is not None and _resource(str(rename)) not in (name, name + _SHARED):
        return f"{name}: it can be renamed to {name}{_SHARED} only, as in NVIDIA's plugin"
    return None


def _shown(value: Any) -> str:
    return reprlib.repr(value)[:64]  # which stays short where aliases nest


def _choices(allowed: tuple[object, ...]) -> str:
    return " or ".join({True: "true", False: "false"}.get(each, str(each)) for each in allowed)  # type: ignore[call-overload]


_SLICED_KEYS = ("name", "rename", "devices", "replicas")
_DEVICE_LISTS = {"envvar": DeviceList.ENV, "cdi-cri": DeviceList.CDI}
_BOOLEAN = _one_of(True, False)
_NO_DIRECT = _one_of(False, because="is not possible: devices of GPUDirect are not handed over")
_GFD = {
    "gfd.oneshot": _BOOLEAN,
    "gfd.noTimestamp": _BOOLEAN,
    "gfd.sleepInterval": _duration,
    "gfd.outputFile": _text,
    "gfd.machineTypeFile": _text,
}
#: Of NVIDIA's own processes: when they end, where their tools and files are. Without GPUs ours
#: neither ends nor idles, but looks again, whatever failOnInitError says.
_NO_EFFECT: Mapping[str, _Check] = {
    "flags.failOnInitError": _BOOLEAN,
    "flags.mpsRoot": _text,
    "flags.plugin.cdiAnnotationPrefix": _text,
    "flags.plugin.nvidiaCTKPath": _text,
    "flags.plugin.containerDriverRoot": _text,
    **{f"flags.{name}": check for name, check in _GFD.items()},
}
_CHECKS: Mapping[str, _Check] = {
    "version": _one_of("v1"),
    "flags.migStrategy": _one_of(*(str(each) for each in MigStrategy)),
    "flags.nvidiaDriverRoot": _absolute,
    "flags.nvidiaDevRoot": _absolute,
    "flags.gdrcopyEnabled": _NO_DIRECT,
    "flags.gdsEnabled": _NO_DIRECT,
    "flags.mofedEnabled": _NO_DIRECT,
    "flags.useNodeFeatureAPI": _one_of(
        False, because="is not possible: labels are written on the Node itself"
    ),
    "flags.deviceDiscoveryStrategy": _one_of("auto", "nvml"),
    "flags.plugin.passDeviceSpecs": _BOOLEAN,
    "flags.plugin.deviceListStrategy": _device_lists,
    "flags.plugin.deviceIDStrategy": _one_of(
        "uuid", because="is not possible: indexes change, so devices are told by UUID"
    ),
    "flags.plugin.sharedDevicesAllocationPolicy": _one_of("distributed", "packed"),
    "resources.gpus": _usual_names,
    "resources.mig": _usual_names,
    "sharing.timeSlicing.renameByDefault": _BOOLEAN,
    "sharing.timeSlicing.failRequestsGreaterThanOne": _BOOLEAN,
    "sharing.timeSlicing.resources": _sliced_resources,
    "sharing.mps": _empty("MPS is not served; share GPUs by timeSlicing"),
    "imex.channelIDs": _empty("IMEX channels are not handed over"),
    "imex.required": _one_of(False, because="is not possible: IMEX channels are not handed over"),
    **_NO_EFFECT,
}

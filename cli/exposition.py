"""What a node agent's metrics say of its GPUs. Pure: lines in, figures out.

Nothing of Prometheus' format is understood beyond samples with labels; what cannot be read is left
out, for the answer comes from a process that may be of another version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cli.rows import Figures
from gpus.model import DeviceId

_FIELDS: Mapping[str, str] = {
    "gpudetour_gpu_temperature_celsius": "temperature_celsius",
    "gpudetour_gpu_utilization_ratio": "utilization",
    "gpudetour_gpu_memory_used_bytes": "memory_used_bytes",
    "gpudetour_gpu_power_watts": "power_watts",
}
_SAMPLE = re.compile(r"(?P<name>[a-z_]+)\{(?P<labels>.*)\} (?P<value>[-+0-9.eE]+)(?: \d+)?")
_UUID = re.compile(r'(?:^|,)uuid="([^"\\]*)"')


def figures(lines: Iterable[str]) -> dict[DeviceId, Figures]:
    """Return what is told of each GPU."""
    found: dict[DeviceId, dict[str, Any]] = {}
    for line in lines:
        if not line.startswith("gpudetour_gpu_"):
            continue
        sample = _SAMPLE.fullmatch(line)
        if sample is None or sample["name"] not in _FIELDS:
            continue
        uuid = _UUID.search(sample["labels"])
        if uuid is None:
            continue
        try:
            value = float(sample["value"])
        except ValueError:
            continue
        found.setdefault(DeviceId(uuid[1]), {})[_FIELDS[sample["name"]]] = value
    return {uuid: Figures(**told) for uuid, told in found.items()}

"""Annotations that promise devices and that only we, or NVIDIA's own parts, may write.

They are dropped rather than refused: whoever copies a running pod brings them along unknowingly.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpus.annotations import ASSIGNED

#: The domain of annotations by which a runtime or NRI plugin injects CDI devices, such as
#: `cdi.k8s.io/…` (CNCF container-device-interface) and `nvidia.cdi.k8s.io/…` (GPU operator).
_CDI = "cdi.k8s.io"


def without_forged(annotations: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the annotations that may stay, and a warning for each that goes."""
    kept, warnings = {}, []
    for key, value in annotations.items():
        if key == ASSIGNED:
            warnings.append(f"annotation {key} was removed: only the scheduler's extender sets it")
        elif _injects_devices(key):
            warnings.append(
                f"annotation {key[:100]} was removed: devices are given by request only"
            )
        else:
            kept[key] = value
    return kept, warnings


def _injects_devices(key: str) -> bool:
    domain, slash, _name = key.partition("/")
    return bool(slash) and (domain == _CDI or domain.endswith(f".{_CDI}"))

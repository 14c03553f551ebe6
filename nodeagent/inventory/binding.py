"""pynvml with NVIDIA's library loaded by absolute path; the only module that knows pynvml.

pynvml finds its library by name only, where the dynamic linker looks. Setting the library before
nvmlInit makes it use ours. It caches function pointers, which must be forgotten for another
library. Not here: what the answers mean.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pynvml

from nodeagent.inventory.library import LibraryFile
from nodeagent.inventory.source import InventoryError

Handle = Any
"""A device handle: opaque, and only for this module's functions."""

INVALID_ARGUMENT = int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
NOT_SUPPORTED = int(pynvml.NVML_ERROR_NOT_SUPPORTED)
NOT_FOUND = int(pynvml.NVML_ERROR_NOT_FOUND)
TIMEOUT = int(pynvml.NVML_ERROR_TIMEOUT)
FUNCTION_NOT_FOUND = int(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
RESET_REQUIRED = int(pynvml.NVML_ERROR_RESET_REQUIRED)
GPU_IS_LOST = int(pynvml.NVML_ERROR_GPU_IS_LOST)
GPU_NOT_FOUND = int(pynvml.NVML_ERROR_GPU_NOT_FOUND)

XID_EVENT = int(pynvml.nvmlEventTypeXidCriticalError)
RECOVERY_ACTION_FIELD = int(pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
UNCORRECTED = int(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
VOLATILE = int(pynvml.NVML_VOLATILE_ECC)
GPU_TEMPERATURE = int(pynvml.NVML_TEMPERATURE_GPU)
#: For nvmlDeviceGetMemoryInfo: with it, what the driver keeps for itself is not called used.
MEMORY_VERSION = pynvml.nvmlMemory_v2
AFFINITY_NODE = int(pynvml.NVML_AFFINITY_SCOPE_NODE)
MOST_NVLINKS = int(pynvml.NVML_NVLINK_MAX_LINKS)
NVLINK_TO_SWITCH = int(pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)
P2P_NVLINK = int(pynvml.NVML_P2P_CAPS_INDEX_NVLINK)

#: A card or driver without a fact; it is then absent from the inventory.
_ABSENT = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)


class NvmlError(Exception):
    """A call that NVML refused."""

    def __init__(self, function: str, code: int, text: str) -> None:
        super().__init__(f"{function}: {text} (nvmlReturn_t {code})")
        self.function = function
        self.code = code

    @property
    def lost(self) -> bool:
        """Whether the GPU itself is out of reach."""
        return self.code in (GPU_IS_LOST, GPU_NOT_FOUND)


def load(library: LibraryFile, *, attempt: int) -> None:
    """Make pynvml use this library file; raises `InventoryError` if it cannot be loaded.

    `attempt` counts the loads of this process. The dynamic linker takes a known path for the
    library that it has already, so every load spells the path in its own way: a driver may have
    been replaced in place. The old mapping stays, because a thread may still be inside of it.
    """
    spelling = f"{library.path.parent}{'/.' * attempt}/{library.path.name}"
    try:
        loaded = ctypes.CDLL(spelling)
    except OSError as error:
        raise InventoryError(
            f"cannot load {library.path}: {error}",
            advice="reinstall NVIDIA's driver on the node, or set --driver-root to a complete one",
            code=12,
        ) from error
    with pynvml.libLoadLock:
        pynvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001 (pynvml offers no way to reload)
        pynvml.nvmlLib = loaded


def call(function: str, *arguments: object) -> Any:
    """Call a pynvml function by name; raises `NvmlError`.

    Text that is not UTF-8 is answered as None.
    """
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        raise NvmlError(function, error.value, str(error)) from error
    except UnicodeDecodeError:
        return None


def value(function: str, *arguments: object) -> Any:
    """The same, with None for what the card or the driver does not have."""
    try:
        return call(function, *arguments)
    except NvmlError as error:
        if error.code in _ABSENT:
            return None
        raise


def field_value(handle: Handle, field: int) -> int | None:
    """An unsigned field of nvmlDeviceGetFieldValues, or None; raises `NvmlError`."""
    answers = value("nvmlDeviceGetFieldValues", handle, [field])
    if not answers or answers[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    return int(answers[0].value.uiVal)


def address(handle: Handle) -> int | None:
    """What tells one handle from another."""
    return ctypes.cast(handle, ctypes.c_void_p).value

"""Asks NVML whether it works, in a process of its own: a GPU that hangs may not hang the doctor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from doctor.facts.host import NVML_TIMED_OUT, Nvml

#: Seconds; NVML of a machine with eight sleeping GPUs takes about five.
_TIMEOUT = 30.0
_UNKNOWN = 999


def ask_nvml(driver_root: Path, *, timeout: float = _TIMEOUT) -> Nvml | None:
    """Return NVML's answer from below a driver root, None where it could not be asked."""
    command = [sys.executable, "-m", "doctor.gather.nvml", str(driver_root)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Nvml(code=NVML_TIMED_OUT, text=f"NVML did not answer in {timeout:.0f} s")
    except OSError:
        return None
    try:
        told = json.loads(done.stdout)
        return Nvml(code=int(told["code"]), text=str(told["text"]), gpus=int(told["gpus"]))
    except (ValueError, KeyError, TypeError):  # it died: the library took the process with it
        return Nvml(code=_UNKNOWN, text=f"NVML ended its process (status {done.returncode})")


def main(driver_root: str) -> None:
    """Write NVML's answer to standard output."""
    from nodeagent.inventory import binding
    from nodeagent.inventory.library import find_library
    from nodeagent.inventory.source import InventoryError

    try:
        binding.load(find_library(Path(driver_root)), attempt=0)
        binding.call("nvmlInit")
        told = Nvml(gpus=int(binding.call("nvmlDeviceGetCount")))
    except InventoryError as error:
        told = Nvml(code=error.code or _UNKNOWN, text=error.detail)
    except binding.NvmlError as error:
        told = Nvml(code=error.code, text=str(error))
    sys.stdout.write(json.dumps({"code": told.code, "text": told.text, "gpus": told.gpus}))


if __name__ == "__main__":
    main(sys.argv[1])

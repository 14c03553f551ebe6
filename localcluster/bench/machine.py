"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

_GIBI = 1 << 30


def describe_machine(kube_apiserver: Path) -> dict[str, str | int | float]:
    """The machine, its load before the measurement, and the versions of what ran."""
    version = subprocess.run(
        [kube_apiserver, "--version"], capture_output=True, text=True, check=True
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(pages / _GIBI, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kubernetes": version.stdout.strip().removeprefix("Kubernetes "),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()

"""A program that stands for nvidia-smi: a script which prints what a test wrote down."""

from __future__ import annotations

from collections.abc import Sequence

from localcluster.nvml.machine import Machine

_SCRIPT = """#!/bin/sh
folder=$(dirname "$0")
echo "$*" >> "$folder/asked"
[ -e "$folder/wait" ] && exec sleep 600
[ -e "$folder/fail" ] && { cat "$folder/fail"; exit 9; }
case "$1" in
-q) cat "$folder/log.xml" ;;
*) cat "$folder/capabilities" ;;
esac
"""


class SmiProgram:
    """nvidia-smi below the driver root of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.folder = machine.driver_root / "usr/bin"
        self.folder.mkdir(parents=True)
        program = self.folder / "nvidia-smi"
        program.write_text(_SCRIPT)
        program.chmod(0o755)
        self.capabilities({})

    def log(self, *gpus: str, driver: str = "580.95.05", cuda: str = "13.0") -> None:
        """Let it list GPUs, each as `gpu_element` makes it."""
        self.text(
            f'<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n'
            f"<nvidia_smi_log><driver_version>{driver}</driver_version>"
            f"<cuda_version>{cuda}</cuda_version>{''.join(gpus)}</nvidia_smi_log>\n"
        )

    def text(self, text: str) -> None:
        """Let it print any text as its log."""
        (self.folder / "log.xml").write_text(text)

    def capabilities(self, of: dict[str, str]) -> None:
        """Let it tell compute capabilities by UUID."""
        lines = [f"{uuid}, {capability}\n" for uuid, capability in of.items()]
        (self.folder / "capabilities").write_text("".join(lines))

    def fail(self, text: str) -> None:
        """Let it end with an error."""
        (self.folder / "fail").write_text(text)

    def hang(self) -> None:
        """Let it not answer."""
        (self.folder / "wait").touch()

    def answer(self) -> None:
        """End `fail` and `hang`."""
        for name in ("fail", "wait"):
            (self.folder / name).unlink(missing_ok=True)

    def asked(self) -> Sequence[str]:
        """The arguments of each run so far."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []


def gpu_element(uuid: str, bdf: str = "00000000:01:00.0", **texts: str) -> str:
    """A GPU in the log; `texts` replace elements by their paths, with `__` between names."""
    values = {
        "product_name": "NVIDIA GeForce RTX 4090",
        "minor_number": "3",
        "display_active": "Disabled",
        "fb_memory_usage__total": "24564 MiB",
        "mig_mode__current_mig": "N/A",
        "temperature__gpu_temp": "34 C",
        **texts,
    }
    inner = ""
    for path, text in values.items():
        names = path.split("__")
        opened = "".join(f"<{name}>" for name in names)
        closed = "".join(f"</{name}>" for name in reversed(names))
        inner += f"{opened}{text}{closed}"
    return f'<gpu id="{bdf}"><uuid>{uuid}</uuid>{inner}</gpu>'

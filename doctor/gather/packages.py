"""Versions of what is installed: from dpkg's database, or from the programs themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from doctor.facts.facts import version_of
from doctor.gather.tree import Tree

#: Runs a program and returns what it printed, empty where it cannot be run.
Run = Callable[[Sequence[str]], str]

_PACKAGES = {
    "nvidia-container-toolkit": "toolkit",
    "nvidia-container-toolkit-base": "toolkit",
    "containerd": "containerd",
    "containerd.io": "containerd",
    "cri-o": "cri-o",
}
_COMMANDS = {
    "toolkit": ("nvidia-ctk", "--version"),
    "containerd": ("containerd", "--version"),
    "cri-o": ("crio", "--version"),
}
_TIMEOUT = 5.0


def run_program(command: Sequence[str]) -> str:
    """Run one of this machine's programs; it must only tell something about itself."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, timeout=_TIMEOUT, check=False, text=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ""
    return done.stdout


def read_versions(tree: Tree, run: Run | None) -> dict[str, tuple[int, ...]]:
    """Return the versions of `toolkit`, `containerd` and `cri-o`, as far as they can be told."""
    found = _of_dpkg(tree)
    if run is None:
        return found
    for name, command in _COMMANDS.items():
        if name not in found and (version := _version_in(run(command))):
            found[name] = version
    return found


def _of_dpkg(tree: Tree) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for paragraph in (tree.text("var/lib/dpkg/status") or "").split("\n\n"):
        lines = paragraph.splitlines()
        package = next((line[9:] for line in lines if line.startswith("Package: ")), "")
        if package not in _PACKAGES or "Status: install ok installed" not in lines:
            continue
        version = next((line[9:] for line in lines if line.startswith("Version: ")), "")
        if numbers := version_of(version.rpartition(":")[2]):
            found[_PACKAGES[package]] = numbers
    return found


def _version_in(text: str) -> tuple[int, ...]:
    """Return the first version with a dot among the words of a program's answer."""
    for word in text.split():
        if len(numbers := version_of(word)) >= 2:
            return numbers
    return ()

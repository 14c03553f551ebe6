"""NVIDIA's container toolkit: its programs, its configuration, and what that refers to."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from doctor.facts.runtime import Toolkit
from doctor.gather.tree import Tree

_PROGRAMS = (
    "nvidia-container-runtime",
    "nvidia-container-runtime-hook",
    "nvidia-ctk",
    "nvidia-cdi-hook",
)
#: Packages, Talos' extension, the GPU Operator, NixOS.
FOLDERS = (
    "/usr/bin",
    "/usr/local/bin",
    "/usr/local/nvidia/toolkit",
    "/usr/sbin",
    "/run/current-system/sw/bin",
)
_OPERATOR_CONFIG = "/usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml"
_CONFIG = "/etc/nvidia-container-runtime/config.toml"
#: What `nvidia-container-runtime.runtimes` is where nobody set it (1.14 and later).
_LOW_LEVEL = ("runc", "crun")


def read_toolkit(tree: Tree, *, version: tuple[int, ...], search_path: tuple[str, ...]) -> Toolkit:
    """Return what is installed and configured."""
    binaries = {name: tree.program((name,), FOLDERS) for name in _PROGRAMS}
    binaries = {name: path for name, path in binaries.items() if path}
    runtime = binaries.get("nvidia-container-runtime", "")
    path = _OPERATOR_CONFIG if tree.exists(_OPERATOR_CONFIG) else _CONFIG
    config, fault = _read_config(tree, path)
    toolkit = Toolkit(
        binaries=binaries,
        installed_at=tree.modified(runtime) if runtime else 0.0,
        version=version,
        config_path=path,
        config_fault=fault,
        config=config,
    )
    root = toolkit.setting("nvidia-container-cli", "root")
    ldconfig = toolkit.setting("nvidia-container-cli", "ldconfig")
    return replace(
        toolkit,
        low_level=_low_level(tree, toolkit, search_path),
        has_root=not isinstance(root, str) or tree.exists(root),
        # With "@" in front the path is the host's, otherwise the container's.
        has_ldconfig=not isinstance(ldconfig, str)
        or not ldconfig.startswith("@")
        or tree.exists(ldconfig[1:]),
    )


def _read_config(tree: Tree, path: str) -> tuple[Mapping[str, Any], str]:
    text = tree.text(path)
    if text is None:
        return {}, ""
    try:
        return tomllib.loads(text), ""
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return {}, str(error)


def _low_level(tree: Tree, toolkit: Toolkit, search_path: tuple[str, ...]) -> dict[str, str]:
    named = toolkit.setting("nvidia-container-runtime", "runtimes")
    told = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return {name: tree.program((name,), search_path) for name in told or _LOW_LEVEL}

"""Our own part of the image: the packages, what tells their version, and the command."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.tree import PROGRAM_MODE, Entry, File, Tree
from image.wheels import SITE

_TOOLS = frozenset({"image", "localcluster", "release"})
"""Packages of the checkout that do not run in a cluster."""

_LEFT_OUT = (".pyc", ".pyi", ".proto")


class ProductError(Exception):
    """The checkout is not one of gpudetour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What pyproject.toml says; the version stands nowhere else."""

    name: str
    version: str
    description: str
    licence: str
    scripts: dict[str, str]
    dependencies: tuple[str, ...]
    python: str
    """Which versions of Python will do."""
    packages: tuple[str, ...]
    """What runs in a cluster."""


def read_project(checkout: Path) -> Project:
    """What the checkout's pyproject.toml says; raises `ProductError`."""
    try:
        whole: dict[str, Any] = tomllib.loads((checkout / "pyproject.toml").read_text())
        table = whole["project"]
        patterns = whole["tool"]["setuptools"]["packages"]["find"]["include"]
        return Project(
            name=table["name"],
            version=table["version"],
            description=table["description"],
            licence=table["license"],
            scripts=dict(table["scripts"]),
            dependencies=tuple(table["dependencies"]),
            python=table["requires-python"],
            packages=tuple(sorted({name.rstrip("*") for name in patterns} - _TOOLS)),
        )
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise ProductError(f"{checkout} is no checkout of gpudetour: {error}") from error


def product_tree(checkout: Path, project: Project) -> Tree:
    """The packages in the checkout as they lie there, with their metadata and commands."""
    tree: dict[str, Entry] = {}
    for package in project.packages:
        for path in (checkout / package).rglob("*"):
            inside = path.relative_to(checkout)
            if path.is_file() and path.suffix not in _LEFT_OUT and not _hidden(inside):
                tree[f"{SITE}/{inside}"] = File(path.read_bytes())
    metadata = f"{SITE}/{project.name}-{project.version}.dist-info"
    tree[f"{metadata}/METADATA"] = File(_metadata(project).encode())
    tree[f"{metadata}/licenses/LICENSE"] = File((checkout / "LICENSE").read_bytes())
    for name, target in project.scripts.items():
        tree[f"usr/bin/{name}"] = File(_script(target).encode(), PROGRAM_MODE)
    return tree


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _metadata(project: Project) -> str:
    """The core metadata that `importlib.metadata` reads the version from."""
    needed = "".join(f"Requires-Dist: {dependency}\n" for dependency in project.dependencies)
    return (
        f"Metadata-Version: 2.4\nName: {project.name}\nVersion: {project.version}\n"
        f"Summary: {project.description}\nLicense-Expression: {project.licence}\n"
        f"License-File: LICENSE\nRequires-Python: {project.python}\n{needed}"
    )


def _script(target: str) -> str:
    match = re.fullmatch(r"([\w.]+):(\w+)", target)
    if match is None:
        raise ProductError(f"a script of pyproject.toml is no module and function: {target}")
    module, function = match.groups()
    return (
        "#!/usr/bin/python3\n"
        f"import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
    )

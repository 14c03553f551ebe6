"""Finding programs that are on the machine already: an explicit folder, PATH, our cache.

Nothing is fetched or changed here.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from localcluster.parts.catalogue import Part
from localcluster.settings import Settings

_PATIENCE = 5.0
"""Seconds that an unknown program on PATH gets to tell its version."""


def find(part: Part, settings: Settings) -> Path | None:
    """The program of the first place that has it, in the order folder, PATH, cache."""
    for look in LOOKUPS:
        found = look(part, settings)
        if found is not None:
            return found
    return None


def cached_path(part: Part, settings: Settings) -> Path:
    """Where the cache keeps `part`; files get there whole or not at all."""
    return settings.cache / "parts" / part.group.folder / part.name


def in_folder(part: Part, settings: Settings) -> Path | None:
    """The program in the explicit folder: its version is the user's choice."""
    if settings.parts_folder is None:
        return None
    return _executable(settings.parts_folder / part.name)


def on_path(part: Part, settings: Settings) -> Path | None:
    """The first program of that name on PATH that says it is the right one in the right version."""
    if part.version_arguments is None:
        return None
    for folder in settings.search_path.split(os.pathsep):
        candidate = _executable(Path(folder) / part.name) if folder else None
        if candidate is not None and _is_version(candidate, part):
            return candidate
    return None


def in_cache(part: Part, settings: Settings) -> Path | None:
    """The program that an earlier run downloaded or built."""
    return _executable(cached_path(part, settings))


LOOKUPS: tuple[Callable[[Part, Settings], Path | None], ...] = (in_folder, on_path, in_cache)


def _executable(path: Path) -> Path | None:
    return path.absolute() if path.is_file() and os.access(path, os.X_OK) else None


def _is_version(program: Path, part: Part) -> bool:
    try:
        outcome = subprocess.run(
            [str(program), *(part.version_arguments or ())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    text = outcome.stdout.decode("utf-8", errors="replace")
    return re.search(part.version_pattern, text, flags=re.MULTILINE) is not None

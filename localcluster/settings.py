"""Where things are kept and what the environment says; the only reader of the environment here.

Command-line options are parsed in `__main__`; defaults for them come from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Folders to use, and the environment that started programs inherit."""

    cache: Path
    """Programs, toolchains and compiled images; shared by all checkouts of one user."""
    state: Path
    """The cluster's own folder when the caller names none."""
    parts_folder: Path | None = None
    """A folder with programs that the user vouches for; looked at first, versions unchecked."""
    node_patience: float = 120.0
    """Seconds to wait for another cluster to give the machine's one real node back."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What child processes start from."""

    def __post_init__(self) -> None:
        """Refuse relative folders: child processes run in other folders."""
        for folder in (self.cache, self.state, self.parts_folder):
            if folder is not None and not folder.is_absolute():
                raise ValueError(f"{folder} is a relative path; give an absolute one")

    @property
    def search_path(self) -> str:
        """The PATH in which installed programs are looked for."""
        return self.environment.get("PATH", os.defpath)


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Settings by `GPUDETOUR_CACHE`, `KUBEBUILDER_ASSETS` and the XDG base directories."""
    home = Path(environment.get("HOME") or Path.home())
    cache = environment.get("GPUDETOUR_CACHE")
    cache_home = _folder(environment, "XDG_CACHE_HOME", home / ".cache")
    state_home = _folder(environment, "XDG_STATE_HOME", home / ".local" / "state")
    assets = environment.get("KUBEBUILDER_ASSETS")
    return Settings(
        cache=Path(cache).absolute() if cache else cache_home / "gpudetour",
        state=state_home / "gpudetour" / "localcluster",
        parts_folder=Path(assets).absolute() if assets else None,
        environment=dict(environment),
    )


def default_settings() -> Settings:
    """Settings of this process's environment."""
    return settings_from(os.environ)


def _folder(environment: Mapping[str, str], name: str, default: Path) -> Path:
    # The XDG specification tells programs to ignore relative values.
    value = Path(environment.get(name) or "")
    return value if value.is_absolute() else default

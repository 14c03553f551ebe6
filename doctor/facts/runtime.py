"""Facts of the container runtime, NVIDIA's toolkit and CDI specs of one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Name of NVIDIA's handler, wherever nobody chose another.
HANDLER = "nvidia"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolkit:
    """NVIDIA's container toolkit.

    `binaries` maps the names of its programs to where they are. `low_level` maps each entry of
    `nvidia-container-runtime.runtimes` to the file it stands for, empty where there is none.
    """

    binaries: Mapping[str, str] = field(default_factory=dict)
    installed_at: float = 0.0
    version: tuple[int, ...] = ()
    config_path: str = ""
    config_fault: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    low_level: Mapping[str, str] = field(default_factory=dict)
    has_root: bool = True
    has_ldconfig: bool = True

    def setting(self, *path: str) -> Any:
        """Return a value of its config.toml, None where it or a section is absent."""
        value: Any = self.config
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A runtime that the configuration names; `file` is empty where `binary` is not there."""

    name: str
    binary: str = ""
    file: str = ""
    systemd_cgroup: bool | None = None

    @property
    def is_nvidia(self) -> bool:
        """Tell whether it runs NVIDIA's wrapper of runc."""
        return "nvidia" in self.binary.rsplit("/", 1)[-1] or self.name == HANDLER


@dataclass(frozen=True, slots=True, kw_only=True)
class Misplaced:
    """A section with NVIDIA's runtime in a file of another version, 0 where it names none."""

    path: str
    section: str
    section_version: int
    file_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The container runtime and its effective configuration, drop-ins included.

    `kind` is `containerd`, `cri-o` or empty. `unimported` are drop-in files that nothing imports,
    `misplaced` sections that belong to another config version, `templates` K3s's and RKE2's files
    beside the rendered one. `changed_at` is the newest of the files read, `nvidia_changed_at` of
    those that name NVIDIA, `started_at` when the runtime's process began; 0 where unknown.
    """

    kind: str = ""
    config_path: str = ""
    config_exists: bool = False
    fault: str = ""
    config_version: int = 0
    imports: tuple[str, ...] = ()
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    default: str = ""
    disabled: tuple[str, ...] = ()
    enable_cdi: bool | None = None
    cdi_folders: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    unimported: tuple[str, ...] = ()
    misplaced: tuple[Misplaced, ...] = ()
    templates: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    version: tuple[int, ...] = ()
    changed_at: float = 0.0
    nvidia_changed_at: float = 0.0
    started_at: float = 0.0
    #: Its process runs, but we may not see where it looks for programs.
    path_is_hidden: bool = False

    def nvidia(self) -> tuple[Handler, ...]:
        """Return the handlers that run NVIDIA's runtime."""
        return tuple(handler for handler in self.handlers.values() if handler.is_nvidia)


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiFile:
    """One CDI spec; `missing` are host paths it names that do not exist.

    `driver_versions` are those in the names of the libraries it mounts.
    """

    path: str
    fault: str = ""
    version: str = ""
    kind: str = ""
    devices: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    driver_versions: frozenset[str] = frozenset()

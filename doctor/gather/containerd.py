"""containerd's effective configuration: the main file, what it imports, and what it ignores.

Sections changed their names with the version of the file (containerd docs/cri/config.md), and a
section of another version is ignored without a word.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from doctor.facts.runtime import HANDLER, Handler, Ignored, Runtime
from doctor.gather.places import Places
from doctor.gather.tree import Tree
from doctor.shapes import mapping, texts

#: Where the CRI plugin's runtimes are configured, by version of the file.
_SECTIONS = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_NEWEST = max(_SECTIONS)
#: containerd imports this folder by itself since 2.2.
_DEFAULT_IMPORT = "/etc/containerd/conf.d"
_DEFAULT_IMPORT_SINCE = (2, 2)
_MOST_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: str
    config: Mapping[str, Any]
    version: int

    def section(self, version: int) -> Mapping[str, Any]:
        return mapping(mapping(self.config.get("plugins")).get(_SECTIONS[version]))

    @property
    def cri(self) -> Mapping[str, Any]:
        return self.section(min(max(self.version, 1), _NEWEST))


@dataclass(slots=True)
class _Loaded:
    """What was read so far, in the order in which containerd merges it."""

    files: list[_File] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)


def read_containerd(
    tree: Tree, places: Places, *, version: tuple[int, ...], search_path: tuple[str, ...]
) -> Runtime:
    """Return the configuration as containerd would take it when it started now."""
    loaded = _Loaded()
    _load(tree, places.config, loaded, inherited=1)
    main = loaded.files[0] if loaded.files and loaded.files[0].path == places.config else None
    if _imports_by_itself(main, version):
        for path in tree.matching(f"{_DEFAULT_IMPORT}/*.toml"):
            _load(tree, path, loaded, inherited=main.version if main else _NEWEST)
    read = {file.path for file in loaded.files}
    handlers = _handlers(tree, loaded.files, search_path)
    return Runtime(
        kind="containerd",
        config_path=places.config,
        config_exists=tree.exists(places.config),
        fault="; ".join(loaded.faults[:3]),
        config_version=main.version if main else 0,
        imports=tuple(loaded.patterns),
        handlers=handlers,
        default=_last_text(loaded.files, "containerd", "default_runtime_name"),
        disabled=_disabled(loaded.files),
        enable_cdi=_enable_cdi(loaded.files),
        cdi_folders=_cdi_folders(loaded.files),
        # A file that cannot be read may import anything.
        unimported=() if loaded.faults else tuple(_unimported(tree, places, read)),
        misplaced=tuple(_misplaced(loaded.files)),
        templates=tuple(path for path in places.templates if tree.exists(path)),
        version=version,
        changed_at=max((tree.modified(path) for path in read), default=0.0),
    )


def _load(tree: Tree, path: str, loaded: _Loaded, *, inherited: int) -> None:
    if len(loaded.files) >= _MOST_FILES or any(file.path == path for file in loaded.files):
        return
    text = tree.text(path)
    if text is None:
        return
    try:
        config = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        loaded.faults.append(f"{path}: {error}")
        return
    version = config.get("version", inherited)
    known = isinstance(version, int) and not isinstance(version, bool)
    file = _File(path=path, config=config, version=version if known else inherited)
    loaded.files.append(file)
    for pattern in texts(config.get("imports")):
        loaded.patterns.append(pattern)
        whole = pattern if pattern.startswith("/") else f"{path.rpartition('/')[0]}/{pattern}"
        for imported in tree.matching(whole):
            _load(tree, imported, loaded, inherited=file.version)


def _imports_by_itself(main: _File | None, version: tuple[int, ...]) -> bool:
    if version:
        return version >= _DEFAULT_IMPORT_SINCE
    # Not known: a file of the newest form may belong to a containerd that does.
    return main is not None and main.version >= _NEWEST


def _handlers(tree: Tree, files: list[_File], search_path: tuple[str, ...]) -> dict[str, Handler]:
    options: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, runtime in _runtimes(file.cri).items():
            merged = options.setdefault(name, {})
            merged.update(mapping(mapping(runtime).get("options")))
    return {name: _handler(tree, name, merged, search_path) for name, merged in options.items()}


def _handler(
    tree: Tree, name: str, options: Mapping[str, Any], search_path: tuple[str, ...]
) -> Handler:
    binary = options.get("BinaryName")
    binary = binary if isinstance(binary, str) else ""
    cgroup = options.get("SystemdCgroup")
    return Handler(
        name=name,
        binary=binary,
        file=tree.program((binary,), search_path) if binary else "",
        systemd_cgroup=cgroup if isinstance(cgroup, bool) else None,
    )


def _disabled(files: list[_File]) -> tuple[str, ...]:
    named = [name for file in files for name in texts(file.config.get("disabled_plugins"))]
    return tuple(name for name in named if name in _SECTIONS.values())


def _enable_cdi(files: list[_File]) -> bool | None:
    found = [file.cri.get("enable_cdi") for file in files]
    told = [value for value in found if isinstance(value, bool)]
    return told[-1] if told else None


def _cdi_folders(files: list[_File]) -> tuple[str, ...]:
    told = [folders for file in files if (folders := texts(file.cri.get("cdi_spec_dirs")))]
    return tuple(told[-1]) if told else Runtime().cdi_folders


def _last_text(files: list[_File], *path: str) -> str:
    found = ""
    for file in files:
        value: Any = file.cri
        for step in path:
            value = mapping(value).get(step)
        found = value if isinstance(value, str) and value else found
    return found


def _unimported(tree: Tree, places: Places, read: set[str]) -> Iterator[Ignored]:
    for folder in places.drop_ins:
        for path in tree.matching(f"{folder}/*.toml"):
            if path not in read and HANDLER in (tree.text(path) or ""):
                yield Ignored(path=path, why="no file that containerd reads imports it")


def _misplaced(files: list[_File]) -> Iterator[Ignored]:
    for file in files:
        for version, section in _SECTIONS.items():
            names = [name for name in _runtimes(file.section(version)) if HANDLER in name]
            if names and version != min(max(file.version, 1), _NEWEST):
                why = (
                    f'section plugins."{section}" is of version {version},'
                    f" and the file is of version {file.version}"
                )
                yield Ignored(path=file.path, why=why)


def _runtimes(cri: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(cri.get("containerd")).get("runtimes"))

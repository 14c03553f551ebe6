"""containerd's effective configuration: the main file, what it imports, and what it ignores.

Sections changed their names with the version of the file (containerd docs/cri/config.md).
containerd 2 translates a file of version 2 and reads the newest names in any file; older names in a
file of another version, or of none, are ignored without a word. Tests compare this with containerd.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from doctor.facts.runtime import HANDLER, Handler, Misplaced, Runtime
from doctor.gather.places import Places
from doctor.gather.tree import Tree
from doctor.shapes import mapping, text, texts

#: Where the CRI plugin's runtimes are configured, by version of the file.
_SECTIONS = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_NEWEST = max(_SECTIONS)
#: containerd imports this folder by itself since 2.2.
_DEFAULT_IMPORT = "/etc/containerd/conf.d"
_DEFAULT_IMPORT_SINCE = (2, 2)
_KNOWS_NEWEST_SINCE = (2, 0)
_MOST_FILES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: str
    config: Mapping[str, Any]
    version: int
    #: False where containerd is known to be older than these names.
    knows_newest: bool

    def section(self, version: int) -> Mapping[str, Any]:
        return mapping(mapping(self.config.get("plugins")).get(_SECTIONS[version]))

    def is_read(self, version: int) -> bool:
        """Tell whether containerd reads the sections of that version in this file."""
        return self.knows_newest if version == _NEWEST else version == self.version

    @property
    def read(self) -> tuple[Mapping[str, Any], ...]:
        """The sections that count, in the order in which they do."""
        return tuple(self.section(version) for version in _SECTIONS if self.is_read(version))


@dataclass(slots=True)
class _Loaded:
    """What was read so far, in the order in which containerd merges it."""

    knows_newest: bool
    files: list[_File] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)


def read_containerd(
    tree: Tree, places: Places, *, version: tuple[int, ...], search_path: tuple[str, ...]
) -> Runtime:
    """Return the configuration as containerd would take it when it started now."""
    loaded = _Loaded(knows_newest=not version or version >= _KNOWS_NEWEST_SINCE)
    _load(tree, places.config, loaded, inherited=1)
    main = loaded.files[0] if loaded.files and loaded.files[0].path == places.config else None
    if _imports_by_itself(main, version):
        for path in tree.matching(f"{_DEFAULT_IMPORT}/*.toml"):
            _load(tree, path, loaded, inherited=main.version if main else _NEWEST)
    read = {file.path for file in loaded.files}
    sections = [section for file in loaded.files for section in file.read]
    return Runtime(
        kind="containerd",
        config_path=places.config,
        config_exists=tree.exists(places.config),
        fault="; ".join(loaded.faults[:3]),
        config_version=main.version if main else 0,
        imports=tuple(loaded.patterns),
        handlers=_handlers(tree, sections, search_path),
        default=_default(sections),
        disabled=_disabled(loaded.files),
        enable_cdi=_enable_cdi(sections),
        cdi_folders=_cdi_folders(sections),
        # A file that cannot be read may import anything.
        unimported=() if loaded.faults else tuple(_unimported(tree, places, read)),
        misplaced=tuple(_misplaced(loaded.files)),
        templates=tuple(path for path in places.templates if tree.exists(path)),
        version=version,
        changed_at=max((tree.modified(path) for path in read), default=0.0),
        nvidia_changed_at=max(
            (tree.modified(path) for path in read if HANDLER in (tree.text(path) or "")),
            default=0.0,
        ),
    )


def _load(tree: Tree, path: str, loaded: _Loaded, *, inherited: int) -> None:
    if len(loaded.files) >= _MOST_FILES or any(file.path == path for file in loaded.files):
        return
    document = tree.text(path)
    if document is None:
        return
    try:
        config = tomllib.loads(document)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        loaded.faults.append(f"{path}: {error}")
        return
    version = config.get("version", inherited)
    known = isinstance(version, int) and not isinstance(version, bool)
    file = _File(
        path=path,
        config=config,
        version=version if known else inherited,
        knows_newest=loaded.knows_newest,
    )
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


def _handlers(
    tree: Tree, sections: list[Mapping[str, Any]], search_path: tuple[str, ...]
) -> dict[str, Handler]:
    options: dict[str, dict[str, Any]] = {}
    for section in sections:
        for name, runtime in _runtimes(section).items():
            merged = options.setdefault(name, {})
            merged.update(mapping(mapping(runtime).get("options")))
    return {name: _handler(tree, name, merged, search_path) for name, merged in options.items()}


def _handler(
    tree: Tree, name: str, options: Mapping[str, Any], search_path: tuple[str, ...]
) -> Handler:
    binary = text(options.get("BinaryName"))
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


def _enable_cdi(sections: list[Mapping[str, Any]]) -> bool | None:
    told = [each["enable_cdi"] for each in sections if isinstance(each.get("enable_cdi"), bool)]
    return told[-1] if told else None


def _cdi_folders(sections: list[Mapping[str, Any]]) -> tuple[str, ...]:
    told = [folders for each in sections if (folders := texts(each.get("cdi_spec_dirs")))]
    return tuple(told[-1]) if told else Runtime().cdi_folders


def _default(sections: list[Mapping[str, Any]]) -> str:
    named = (text(mapping(each.get("containerd")).get("default_runtime_name")) for each in sections)
    told = [name for name in named if name]
    return told[-1] if told else ""


def _unimported(tree: Tree, places: Places, read: set[str]) -> Iterator[str]:
    for folder in places.drop_ins:
        for path in tree.matching(f"{folder}/*.toml"):
            if path not in read and HANDLER in (tree.text(path) or ""):
                yield path


def _misplaced(files: list[_File]) -> Iterator[Misplaced]:
    for file in files:
        for version, section in _SECTIONS.items():
            names = [name for name in _runtimes(file.section(version)) if HANDLER in name]
            if names and not file.is_read(version):
                yield Misplaced(
                    path=file.path,
                    section=section,
                    section_version=version,
                    file_version=file.version if "version" in file.config else 0,
                )


def _runtimes(cri: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(cri.get("containerd")).get("runtimes"))

"""CDI specs of a node: what they name, and whether that is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from doctor.facts.runtime import CdiFile
from doctor.gather.tree import Tree
from doctor.shapes import mappings

_SUFFIXES = (".json", ".yaml", ".yml")
_DRIVER_LIBRARY = re.compile(r"/lib(?:cuda|nvidia-ml)\.so\.([0-9]{2,4}(?:\.[0-9]+){1,3})$")
#: Of each spec; who mends one file mends them all.
_MOST_MISSING = 5


def read_cdi(tree: Tree, folders: tuple[str, ...]) -> tuple[CdiFile, ...]:
    """Return the specs in these folders, in the order in which runtimes read them."""
    found = (
        _read(tree, f"{folder}/{name}")
        for folder in folders
        for name in tree.names(folder) or ()
        if name.endswith(_SUFFIXES)
    )
    return tuple(file for file in found if file is not None)


def _read(tree: Tree, path: str) -> CdiFile | None:
    text = tree.text(path)
    if text is None:
        return None if path in tree.unreadable else CdiFile(path=path, fault="it is no file")
    try:
        spec = json.loads(text) if path.endswith(".json") else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return CdiFile(path=path, fault=" ".join(str(error).split())[:200])
    if not isinstance(spec, Mapping):
        return CdiFile(path=path, fault="it is no mapping")
    if not isinstance(spec.get("cdiVersion"), str) or not isinstance(spec.get("kind"), str):
        return CdiFile(path=path, fault="cdiVersion or kind is missing")
    files = tuple(dict.fromkeys(_host_files(spec)))
    missing = [file for file in files if not tree.exists(file)]
    versions = (match[1] for file in files if (match := _DRIVER_LIBRARY.search(file)))
    return CdiFile(
        path=path,
        version=spec["cdiVersion"],
        kind=spec["kind"],
        devices=tuple(
            name
            for device in mappings(spec.get("devices"))
            if isinstance(name := device.get("name"), str)
        ),
        missing=tuple(missing[:_MOST_MISSING]),
        driver_versions=frozenset(versions),
    )


def _host_files(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of the host that containers of this spec depend on."""
    for holder in (spec, *mappings(spec.get("devices"))):
        edits = holder.get("containerEdits")
        if not isinstance(edits, Mapping):
            continue
        for node in mappings(edits.get("deviceNodes")):
            yield from _path(node.get("hostPath") or node.get("path"))
        for mount in mappings(edits.get("mounts")):
            yield from _path(mount.get("hostPath"))
        for hook in mappings(edits.get("hooks")):
            yield from _path(hook.get("path"))


def _path(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("/"):
        yield value

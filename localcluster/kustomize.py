"""Renders the part of kustomize that the shipped manifests use, without any program of its name.

Files and folders in `resources`; in `patches`, JSON patches of the objects that `target` selects by
kind and name, and `$patch: delete`. Whatever else a kustomization says is refused, for objects that
come out otherwise than on a user's machine would be worse than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

Object = dict[str, Any]

_FILE = "kustomization.yaml"
_KNOWN = {"apiVersion", "kind", "resources", "patches"}
_TARGET = {"kind", "name"}


class ManifestError(Exception):
    """A manifest is not what is expected of it."""


def render(folder: Path) -> list[Object]:
    """Return the objects of a kustomization in order; raises `ManifestError`."""
    path = folder / _FILE
    kustomization = yaml.safe_load(path.read_text())
    if unknown := kustomization.keys() - _KNOWN:
        raise ManifestError(f"{path} uses {', '.join(sorted(unknown))}, which is not known here")
    objects: list[Object] = []
    for name in kustomization.get("resources", ()):
        resource = folder / name
        objects += render(resource) if resource.is_dir() else _documents(resource)
    for entry in kustomization.get("patches", ()):
        objects = list(_patched(objects, entry, folder))
    return objects


def _documents(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def _patched(objects: list[Object], entry: Mapping[str, Any], folder: Path) -> Iterator[Object]:
    target = entry.get("target", {})
    if target.keys() != _TARGET or not entry.keys() <= {"target", "patch", "path"}:
        raise ManifestError(f"{folder / _FILE}: a patch needs a target by kind and name: {entry}")
    text = (folder / entry["path"]).read_text() if "path" in entry else entry["patch"]
    patch = yaml.safe_load(text)
    found = False
    for item in objects:
        if (item["kind"], item["metadata"]["name"]) != (target["kind"], target["name"]):
            yield item
            continue
        found = True
        if not _deletes(patch):
            yield _changed(item, patch)
    if not found:
        raise ManifestError(f"{folder / _FILE} patches {target}, which is in no resource")


def _deletes(patch: object) -> bool:
    return isinstance(patch, dict) and patch.get("$patch") == "delete"


def _changed(item: Object, patch: object) -> Object:
    if not isinstance(patch, list):
        raise ManifestError(f"a patch of {item['metadata']['name']} is no list of JSON operations")
    try:
        changed: Object = jsonpatch.apply_patch(item, patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise ManifestError(f"{item['kind']} {item['metadata']['name']}: {error}") from error
    return changed

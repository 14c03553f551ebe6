"""What the shipped files name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]


def documents(file: Path) -> list[Object]:
    """The objects in a YAML file."""
    return [item for item in yaml.safe_load_all(file.read_text()) if item]


def identity(item: Object) -> tuple[str, str, str]:
    """By what an object is the same in another version of a file."""
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


def images_of(file: Path) -> set[str]:
    """The images that a file names."""
    return {
        each["image"]
        for item in documents(file)
        if item["kind"] in ("Deployment", "DaemonSet")
        for each in item["spec"]["template"]["spec"]["containers"]
    }

"""An image archive as a test reads it: by its manifest, as a registry's client does."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Opened:
    """One image."""

    digest: str
    config: dict[str, Any]
    layers: tuple[bytes, ...]
    """The tar archives."""

    def files(self) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
        """Everything in all layers, the upper ones covering the lower ones."""
        found: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                for entry in archive:
                    file = archive.extractfile(entry) if entry.isfile() else None
                    found[entry.name] = (entry, file.read() if file else b"")
        return found


def open_image(archive: Path) -> Opened:
    """The image in an archive."""
    with tarfile.open(archive) as opened:
        content = {
            entry.name: file.read()
            for entry in opened
            if entry.isfile() and (file := opened.extractfile(entry))
        }

    def blob(digest: str) -> bytes:
        return content[f"blobs/{digest.replace(':', '/')}"]

    (described,) = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(blob(described["digest"]))
    return Opened(
        digest=described["digest"],
        config=json.loads(blob(manifest["config"]["digest"])),
        layers=tuple(gzip.decompress(blob(layer["digest"])) for layer in manifest["layers"]),
    )

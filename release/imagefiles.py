"""Writing a finished image beside its SBOM."""

from __future__ import annotations

from pathlib import Path

from image.build import Image
from localcluster.files import write_atomically


def write_image(image: Image, folder: Path) -> tuple[Path, ...]:
    """Write the archive and the SBOM into `folder`; returns their paths."""
    contents = {
        folder / f"{image.file_name}.tar": image.archive,
        folder / f"{image.file_name}.spdx.json": image.sbom,
    }
    for path, content in contents.items():
        write_atomically(path, content)
    return tuple(contents)

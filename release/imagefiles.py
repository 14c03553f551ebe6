"""The files of a finished image: its archive and its SBOM."""

from __future__ import annotations

from pathlib import Path

from image.build import Image
from localcluster.files import write_atomically


def image_files(image: Image) -> dict[str, bytes]:
    """Names and contents."""
    return {
        f"{image.file_name}.tar": image.archive,
        f"{image.file_name}.spdx.json": image.sbom,
    }


def write_image(image: Image, folder: Path) -> list[Path]:
    """Write the files into `folder` and return their paths."""
    for name, content in image_files(image).items():
        write_atomically(folder / name, content)
    return [folder / name for name in image_files(image)]

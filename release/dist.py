"""All files of a release. What is committed as rendered must be what the sources render to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from image.build import Image
from image.product import product_tree, read_project
from localcluster.files import write_atomically
from localcluster.image.product import CHECKOUT
from localcluster.rendering import FILES, text_of
from localcluster.shipped import MANIFESTS, ManifestError
from release.changelog import notes
from release.chart import chart_package
from release.imagefiles import image_files
from release.wheel import wheel, wheel_name

SUMS = "SHA256SUMS"
_MONITORING = ("alerts.yaml", "dashboard.json")


def release_files(image: Image, *, helm: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file but the checksums.

    Raises `ChangelogError` and `ManifestError` where the checkout's files do not agree.
    """
    project = read_project(CHECKOUT)
    changes = (CHECKOUT / "CHANGELOG.md").read_text()
    yield "release-notes.md", notes(changes, version=project.version).encode()
    yield from image_files(image).items()
    yield f"{project.name}-{project.version}.tgz", chart_package(helm=helm)
    for name in FILES:
        text = (MANIFESTS / f"{name}.yaml").read_text()
        if text != text_of(name, helm=helm):
            raise ManifestError(
                f"manifests/{name}.yaml is not what the chart renders to: make manifests"
            )
        yield f"{name}.yaml", text.encode()
    for name in _MONITORING:
        yield name, (MANIFESTS / "monitoring" / name).read_bytes()
    yield wheel_name(project), wheel(project, product_tree(CHECKOUT, project))
    lock = CHECKOUT / "requirements" / "runtime.lock"
    yield "requirements.lock", lock.read_bytes()


def write_release(image: Image, folder: Path, *, helm: Path) -> list[Path]:
    """Write the release into `folder`, in place of what was there, and return its files."""
    files = dict(release_files(image, helm=helm))
    sums = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    files[SUMS] = "".join(sums).encode()
    for old in folder.glob("*"):
        if old.name not in files and old.is_file():
            old.unlink()
    for name, data in files.items():
        write_atomically(folder / name, data)
    return [folder / name for name in sorted(files)]

"""The chart as Helm packages it, but with the same bytes each time."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from image.tarfiles import compressed, tar
from image.tree import File, Tree
from localcluster.rendering import CHART
from localcluster.shipped import ManifestError


def chart_package(*, helm: Path) -> bytes:
    """The chart's archive; raises `ManifestError` with Helm's words."""
    with TemporaryDirectory(prefix="gpudetour-chart-") as folder:
        done = subprocess.run(
            [str(helm), "package", str(CHART), "--destination", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ManifestError(done.stderr.strip())
        (package,) = Path(folder).glob("*.tgz")
        return compressed(tar(_tree(package)))


def _tree(package: Path) -> Tree:
    """What Helm put in: it writes the time of packing beside every file."""
    with tarfile.open(package) as archive:
        return {
            entry.name: File(file.read())
            for entry in archive
            if (file := archive.extractfile(entry)) is not None
        }

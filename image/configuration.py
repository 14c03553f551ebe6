"""How gpudetour's image is named and run. Pure.

The Dockerfile says the same, and a test compares.
"""

from __future__ import annotations

from image.contents import USER
from image.oci import Configuration
from image.product import Project

REPOSITORY = "gpudetour.local/gpudetour"
"""A name that never resolves, so that nobody else's image is pulled where this one is missing."""


def reference_of(project: Project) -> str:
    """Name and tag of the image."""
    return f"{REPOSITORY}:{project.version}"


def configuration(project: Project) -> Configuration:
    """How the image is run; the manifests name their own command."""
    return Configuration(
        entrypoint=["/usr/bin/gpudetour"],
        command=["--help"],
        environment={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            # There is no locale in the image, and none is needed for this.
            "PYTHONUTF8": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        user=f"{USER}:{USER}",
        folder="/",
        labels={
            "org.opencontainers.image.title": project.name,
            "org.opencontainers.image.description": project.description,
            "org.opencontainers.image.version": project.version,
            "org.opencontainers.image.licenses": project.licence,
        },
    )

"""The wheel of the command line and the processes, for machines without containers. Pure.

Not setuptools': that one also holds what only a checkout needs, and would put packages by such
names as `image` among everybody's.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping

from image.product import Project
from image.tree import File, Tree
from image.wheels import SITE

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip archive can tell."""


def wheel_name(project: Project) -> str:
    """The file's name (PEP 427)."""
    return f"{project.name}-{project.version}-py3-none-any.whl"


def wheel(project: Project, product: Tree) -> bytes:
    """The wheel of the product's packages; equal input gives equal bytes."""
    info = f"{project.name}-{project.version}.dist-info"
    files = {
        path.removeprefix(f"{SITE}/"): entry.content
        for path, entry in product.items()
        if path.startswith(f"{SITE}/") and isinstance(entry, File)
    }
    scripts = "".join(f"{name} = {target}\n" for name, target in sorted(project.scripts.items()))
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: gpudetour\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{scripts}".encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def _record(files: Mapping[str, bytes], own: str) -> str:
    lines = []
    for path, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join(lines) + f"{own},,\n"

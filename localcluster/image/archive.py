"""Images of one program and links to it, for the real node. Pure: values in, bytes out.

How images are packed is `image.oci`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from image import oci
from image.tree import PROGRAM_MODE, Entry, File, Folder, Link

_FOLDERS = ("bin", "dev", "etc", "proc", "sys", "tmp")
"""The runtime mounts over these; tmp is for pods that want to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What an image holds: one program, links to it, and how it is run."""

    reference: str
    """Name and tag."""
    program: bytes
    path: str
    """Where the program lies, absolute."""
    links: Sequence[str] = ()
    """Absolute paths of further names for the program."""
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def archive(image: Image, *, architecture: str) -> bytes:
    """The archive of `image`, as `ctr images import` reads it. Equal images give equal bytes."""
    tree: dict[str, Entry] = {folder: Folder() for folder in _FOLDERS}
    tree[image.path.lstrip("/")] = File(image.program, PROGRAM_MODE)
    tree |= {link.lstrip("/"): Link(image.path) for link in image.links}
    configuration = oci.Configuration(
        entrypoint=image.entrypoint, command=image.command, environment=image.environment
    )
    layer = oci.layer_of(tree, made_of="localcluster")
    return oci.archive(image.reference, [layer], configuration, architecture=architecture)

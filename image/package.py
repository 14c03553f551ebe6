"""What a Debian package holds: its description, its licences, its files. Pure: bytes in.

Maintainer scripts are not run. What they would do for the packages of the image is done in
`contents`: links, accounts, compiled Python.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from image.tree import Entry, File, Folder, Link, Tree

_MAGIC = b"!<arch>\n"
_HEADER = 60
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders of / that are links into /usr since Debian 12 (UsrMerge)."""

MERGED_LINKS: Tree = {name: Link(f"usr/{name}") for name in _MERGED}


class PackageError(Exception):
    """A file is no Debian package that this module can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package."""

    control: str
    """Its paragraph, as dpkg keeps it."""
    tree: Tree

    @property
    def name(self) -> str:
        """Its name."""
        return self.field("Package")

    @property
    def version(self) -> str:
        """Its version."""
        return self.field("Version")

    def field(self, name: str, default: str = "") -> str:
        """One line of its description."""
        match = re.search(rf"^{name}: (.*)$", self.control, re.MULTILINE)
        return match[1].strip() if match else default

    def licences(self) -> tuple[str, ...]:
        """The short names in its copyright file, where that is machine-readable (DEP 5)."""
        entry = self.tree.get(f"usr/share/doc/{self.name}/copyright")
        if not isinstance(entry, File) or not entry.content.startswith(b"Format:"):
            return ()
        text = entry.content.decode("utf-8", errors="replace")
        return tuple(
            sorted({name.strip() for name in re.findall(r"^License: *(.+)$", text, re.MULTILINE)})
        )


def read_package(data: bytes) -> Package:
    """The package in a .deb file; raises `PackageError`."""
    members = dict(_members(data))
    control = next((members[name] for name in members if name.startswith("control.tar")), None)
    content = next((members[name] for name in members if name.startswith("data.tar")), None)
    if control is None or content is None:
        raise PackageError("no control or no data archive in it")
    with tarfile.open(fileobj=io.BytesIO(control)) as archive:
        file = archive.extractfile("./control")
        text = file.read().decode() if file else ""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return Package(control=text, tree=dict(_entries(archive)))


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of an ar archive (deb(5))."""
    if not data.startswith(_MAGIC):
        raise PackageError("it does not begin as a .deb file does")
    position = len(_MAGIC)
    while position + _HEADER <= len(data):
        header = data[position : position + _HEADER]
        name, length = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        position += _HEADER
        yield name, data[position : position + length]
        position += length + length % 2


def _entries(archive: tarfile.TarFile) -> Iterator[tuple[str, Entry]]:
    for member in archive:
        path = _merged(member.name)
        if path == ".":
            continue
        if member.isdir():
            yield path, Folder(member.mode)
        elif member.issym():
            yield path, Link(member.linkname)
        elif member.isfile() or member.islnk():
            # A hard link becomes a second file: layers need no more than that.
            file = archive.extractfile(member)
            assert file is not None  # noqa: S101 - tarfile follows hard links to their file
            yield path, File(file.read(), member.mode)
        else:
            raise PackageError(f"{member.name} is neither file, folder nor link")


def _merged(name: str) -> str:
    path = PurePosixPath(name)
    return f"usr/{path}" if path.parts and path.parts[0] in _MERGED else str(path)

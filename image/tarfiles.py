"""Trees as tar archives whose bytes follow from the tree alone. Pure.

Entries are sorted, belong to root and name no time.
"""

from __future__ import annotations

import gzip
import io
import tarfile

from image.tree import Entry, File, Folder, Link, Tree, with_parents


def tar(tree: Tree) -> bytes:
    """The archive of `tree`; everything in it belongs to root and is from 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, entry in with_parents(tree).items():
            content = entry.content if isinstance(entry, File) else b""
            archive.addfile(_header(path, entry), io.BytesIO(content))
    return buffer.getvalue()


def compressed(data: bytes) -> bytes:
    """`data` by gzip, without a time or a name in its header."""
    return gzip.compress(data, compresslevel=6, mtime=0)


def _header(path: str, entry: Entry) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    match entry:
        case File():
            header.size, header.mode = len(entry.content), entry.mode
        case Folder():
            header.type, header.mode = tarfile.DIRTYPE, entry.mode
        case Link():
            header.type, header.mode, header.linkname = tarfile.SYMTYPE, 0o777, entry.target
    return header

"""A tree of files as values, and how trees come together. Pure, but for `write_tree`.

Owners are left out: in an image everything belongs to root, and no part of ours writes to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FOLDER_MODE = 0o755
FILE_MODE = 0o644
PROGRAM_MODE = 0o755


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    content: bytes
    mode: int = FILE_MODE


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder."""

    mode: int = FOLDER_MODE


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


Entry = File | Folder | Link
Tree = Mapping[str, Entry]
"""Paths without a leading slash. Sorted, every folder comes before what is in it."""


class TreeError(Exception):
    """Two sources of an image disagree about a path."""


def merge(*trees: Tree) -> dict[str, Entry]:
    """One tree of all; raises `TreeError` where two of them hold a different file or link.

    Of folders the first one counts: packages agree about those that matter.
    """
    whole: dict[str, Entry] = {}
    for tree in trees:
        for path, entry in tree.items():
            known = whole.setdefault(path, entry)
            if known != entry and not (isinstance(known, Folder) and isinstance(entry, Folder)):
                raise TreeError(f"/{path} comes from two sources, and they differ")
    return whole


def with_parents(tree: Tree) -> dict[str, Entry]:
    """The tree with every folder that leads to something in it, sorted."""
    whole = dict(tree)
    for path in tree:
        for parent in PurePosixPath(path).parents:
            if str(parent) != ".":
                whole.setdefault(str(parent), Folder())
    return dict(sorted(whole.items()))


def without_empty_folders(tree: Tree, *, keep: Iterable[str] = ()) -> dict[str, Entry]:
    """The tree without folders that lead to nothing, but for those to `keep`."""
    kept = with_parents(
        {path: entry for path, entry in tree.items() if not isinstance(entry, Folder)}
        | {path: tree.get(path, Folder()) for path in keep}
    )
    return {path: tree.get(path, entry) for path, entry in kept.items()}


def size(tree: Tree) -> int:
    """Bytes in all files."""
    return sum(len(entry.content) for entry in tree.values() if isinstance(entry, File))


def write_tree(tree: Tree, folder: Path) -> None:
    """Write the tree below `folder`, with the modes that it names and 1970 as the time of all."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, entry in with_parents(tree).items():
        place = folder / path
        match entry:
            case Folder():
                place.mkdir(parents=True, exist_ok=True)
            case File():
                place.write_bytes(entry.content)
                place.chmod(entry.mode)
            case Link():
                place.symlink_to(entry.target)
    # Folders last, and the deepest first: what is written into one changes its time.
    for path, entry in sorted(with_parents(tree).items(), reverse=True):
        if isinstance(entry, Folder):
            (folder / path).chmod(entry.mode)
        os.utime(folder / path, (0, 0), follow_symlinks=False)

"""Reads files below a root that may be another machine's, and remembers what it was not allowed to.

Symbolic links are followed inside the root. Nothing raises: what is missing or unreadable is None
or empty. Files are read up to a limit, because any of them may be huge, and only regular ones,
because opening a pipe would wait for ever.
"""

from __future__ import annotations

import fnmatch
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nodeagent.inventory.library import resolve_in

#: Bytes; the largest files that are read whole are CDI specs of big machines (about 1 MiB).
MOST = 8 << 20
_STEP = 64 << 10
#: In which a pattern is looked for; each `*` may multiply them.
_MOST_FOLDERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNumber:
    """The numbers of a character device."""

    major: int
    minor: int


def device_number(path: Path) -> DeviceNumber | None:
    """Return the numbers of a character device, None for any other file; raises `OSError`."""
    status = path.stat()
    if not stat.S_ISCHR(status.st_mode):
        return None
    return DeviceNumber(major=os.major(status.st_rdev), minor=os.minor(status.st_rdev))


class Tree:
    """A file tree with its root directory; paths may begin with a slash or not."""

    def __init__(
        self, root: Path, *, devices: Callable[[Path], DeviceNumber | None] = device_number
    ) -> None:
        self.root = root
        self._devices = devices
        #: Path to why it could not be read.
        self.unreadable: dict[str, str] = {}

    @property
    def is_own(self) -> bool:
        """Tell whether it is the root of this very process."""
        return self.root == Path("/")

    def find(self, path: str) -> Path | None:
        """Return where a path leads, None where it leads nowhere."""
        try:
            return resolve_in(self.root, PurePosixPath(path.lstrip("/")))
        except PermissionError as error:
            self._note(path, error)
        except (OSError, ValueError):  # a name too long, or with a null byte
            pass
        return None

    def data(self, path: str, *, tail: int | None = None) -> bytes | None:
        """Return what is in a regular file, or its last `tail` bytes."""
        found = self.find(path)
        try:
            if found is None or not stat.S_ISREG(found.stat().st_mode):
                return None
            with found.open("rb", buffering=0) as file:
                if tail is not None:
                    file.seek(max(0, found.stat().st_size - tail))
                return _whole(file)
        except OSError as error:
            self._note(path, error)
            return None

    def text(self, path: str, *, tail: int | None = None) -> str | None:
        """Return a file's text; bytes that are no UTF-8 become replacement characters."""
        data = self.data(path, tail=tail)
        return None if data is None else data.decode("utf-8", errors="replace")

    def line(self, path: str) -> str:
        """Return a short file's text without the blanks around it, empty where there is none."""
        return (self.text(path) or "").strip()

    def names(self, path: str) -> tuple[str, ...] | None:
        """Return the names in a folder in order, None where it cannot be listed."""
        found = self.find(path)
        if found is None:
            return None
        try:
            return tuple(sorted(entry.name for entry in found.iterdir()))
        except OSError as error:
            self._note(path, error)
            return None

    def matching(self, pattern: str) -> tuple[str, ...]:
        """Return the paths that match a pattern with `*` in any of its parts, in order."""
        paths = [""]
        for part in filter(None, pattern.split("/")):
            if not any(mark in part for mark in "*?["):
                paths = [f"{path}/{part}" for path in paths]
                continue
            paths = [
                f"{path}/{name}"
                for path in paths[:_MOST_FOLDERS]
                for name in self.names(path or "/") or ()
                if fnmatch.fnmatchcase(name, part)
            ]
        return tuple(path for path in paths if self.exists(path))

    def link_name(self, path: str) -> str:
        """Return the last part of a symbolic link's target, empty where there is no link."""
        parent, _, name = path.rpartition("/")
        folder = self.find(parent)
        try:
            return (folder / name).readlink().name if folder is not None else ""
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Tell whether something is there."""
        return self.find(path) is not None

    def is_program(self, path: str) -> bool:
        """Tell whether a file is there that may be run."""
        found = self.find(path)
        try:
            mode = found.stat().st_mode if found is not None else 0
        except OSError:
            return False
        return stat.S_ISREG(mode) and bool(mode & 0o111)

    def program(self, names: tuple[str, ...], folders: tuple[str, ...]) -> str:
        """Return the first of these programs that is in one of the folders, empty if none is."""
        paths = (name if name.startswith("/") else f"{folder}/{name}"
                 for name in names for folder in folders)  # fmt: skip
        return next((path for path in paths if self.is_program(path)), "")

    def modified(self, path: str) -> float:
        """Return when a file's content changed, in seconds since 1970; 0 where it is missing."""
        found = self.find(path)
        try:
            return found.stat().st_mtime if found is not None else 0.0
        except OSError:
            return 0.0

    def device(self, path: str) -> tuple[int, int] | None:
        """Return the numbers of a device node, None where there is nothing, -1 for other files."""
        found = self.find(path)
        if found is None:
            return None
        try:
            number = self._devices(found)
        except OSError:
            return None
        return (number.major, number.minor) if number is not None else (-1, -1)

    def _note(self, path: str, error: OSError) -> None:
        if isinstance(error, PermissionError):
            self.unreadable[f"/{path.lstrip('/')}"] = "permission denied"
        elif not isinstance(error, FileNotFoundError):
            self.unreadable[f"/{path.lstrip('/')}"] = error.strerror or str(error)


def _whole(file: io.FileIO) -> bytes:
    # In small steps: /proc/sys answers a large read with ENOMEM.
    data = bytearray()
    while len(data) < MOST and (chunk := file.read(_STEP)):
        data += chunk
    return bytes(data)

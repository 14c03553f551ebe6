"""Python wheels by the lock file: downloaded and checked by pip, unpacked here.

Unpacking is all that installing a wheel is (PEP 427), and so it needs neither the image's Python
nor a folder; console scripts are left out, because the image has commands of its own only.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from image.platforms import Processor
from image.tree import Entry, File, Tree

PYTHON = "3.11"
"""Debian 12's."""
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
"""Where Debian's Python looks for what does not come from Debian."""


class WheelError(Exception):
    """The wheels cannot be had or unpacked; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel."""

    name: str
    version: str
    licence: str
    """As its metadata tells it: an SPDX expression, free text or a classifier; or nothing."""
    file_name: str
    sha256: str
    tree: Tree


def download(
    lock: Path, *, folder: Path, processor: Processor, report: Callable[[str], None]
) -> list[Wheel]:
    """Every wheel that `lock` names for `processor`, kept in `folder` between calls.

    Raises `WheelError`. One call at a time in a folder.
    """
    text = lock.read_text()
    kept = folder / hashlib.sha256(f"{processor.name} {text}".encode()).hexdigest()[:32]
    if not kept.exists():
        report("downloading the locked wheels")
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:
            _pip_download(lock, Path(scratch, "wheels"), processor)
            Path(scratch, "wheels").rename(kept)
    wheels = [read_wheel(path.name, path.read_bytes()) for path in sorted(kept.glob("*.whl"))]
    if strange := [wheel.file_name for wheel in wheels if f"sha256:{wheel.sha256}" not in text]:
        raise WheelError(f"{kept} holds what {lock.name} does not name, {strange[0]}; remove it")
    return wheels


def _pip_download(lock: Path, folder: Path, processor: Processor) -> None:
    choice = ["--python-version", PYTHON, "--implementation", "cp"]
    for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none"):
        choice += ["--abi", abi]
    for platform in processor.wheel_platforms:
        choice += ["--platform", platform]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:"]
    outcome = subprocess.run(
        [*command, *choice, "--dest", str(folder), "--requirement", str(lock)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if outcome.returncode != 0:
        raise WheelError(
            f"pip cannot download what {lock.name} names: {outcome.stderr.strip()[-800:]}"
        )


def read_wheel(file_name: str, data: bytes) -> Wheel:
    """The wheel in a file; raises `WheelError`."""
    tree: dict[str, Entry] = {}
    with zipfile.ZipFile(BytesIO(data)) as archive:
        for info in archive.infolist():
            path = _place(info.filename)
            if path is not None and not info.is_dir():
                mode = 0o755 if (info.external_attr >> 16) & 0o111 else 0o644
                tree[path] = File(archive.read(info), mode)
    metadata = next((tree[path] for path in tree if path.endswith(".dist-info/METADATA")), None)
    if not isinstance(metadata, File):
        raise WheelError(f"{file_name} has no metadata")
    fields = Parser().parsestr(metadata.content.decode())
    return Wheel(
        name=re.sub(r"[-_.]+", "-", str(fields["Name"])).lower(),
        version=str(fields["Version"]),
        licence=_licence(fields),
        file_name=file_name,
        sha256=hashlib.sha256(data).hexdigest(),
        tree=tree,
    )


def _licence(fields: Message) -> str:
    if told := fields.get("License-Expression") or fields.get("License"):
        return str(told).strip().partition("\n")[0]
    classifiers = [line for line in fields.get_all("Classifier", ()) if line.startswith("License")]
    return str(classifiers[0]) if len(classifiers) == 1 else ""


def _place(name: str) -> str | None:
    """Where a file of a wheel goes; None for what the image does not take."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise WheelError(f"a wheel wants to write {name}")
    if not path.parts[0].endswith(".data"):
        return f"{SITE}/{path}"
    kind, rest = path.parts[1], PurePosixPath(*path.parts[2:])
    match kind:
        case "purelib" | "platlib":
            return f"{SITE}/{rest}"
        case "data":
            return f"usr/local/{rest}"
        case _:
            return None

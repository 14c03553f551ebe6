"""The files that kube-scheduler reads, and the admin's own: reads and writes, decides nothing."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path

import yaml

from scheduling.configuration import Credentials, Object, SetupError
from scheduling.flavors import FILE

_FOLDER_MODE = 0o700


def shipped() -> Object:
    """Return the configuration that comes with gpudetour."""
    configuration: Object = yaml.safe_load(files("scheduling").joinpath(FILE).read_text())
    return configuration


def existing(path: Path) -> object:
    """Return what an admin's file holds; raises `SetupError` where it cannot be read."""
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error


def write(folder: Path, configuration: str, credentials: Credentials) -> None:
    """Write the configuration and the certificates, readable by their owner only.

    Each file appears whole: kube-scheduler may read any of them at any moment. Raises `SetupError`.
    """
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        for name, content in (
            ("ca.crt", credentials.ca),
            ("tls.crt", credentials.certificate),
            ("tls.key", credentials.key),
            (FILE, configuration.encode()),
        ):
            _replace(folder / name, content)
    except OSError as error:
        raise SetupError(f"cannot write to {folder}: {error.strerror}") from error


def _replace(target: Path, content: bytes) -> None:
    # mkstemp makes files of mode 0600.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""Downloading published programs and checking them against their published SHA-256.

Where each is published stands in `catalogue`; nothing without a checksum is ever kept.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import tarfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from localcluster.files import replacing, unfinished_folder

_TIMEOUT = 30.0
_BLOCK = 1 << 20


class DownloadError(Exception):
    """A published file could not be had; the text says which and why."""


class Network:
    """Remembers for one run which servers answer, so that a closed network costs seconds once."""

    def __init__(self, *, patience: float = 3.0) -> None:
        self._patience = patience
        self._answers: dict[str, str | None] = {}

    def obstacle(self, url: str) -> str | None:
        """Why the server of `url` cannot be reached, or None where it answers, with whatever."""
        parts = urllib.parse.urlsplit(url)
        server = f"{parts.scheme}://{parts.netloc}/"
        if server not in self._answers:
            self._answers[server] = self._probe(server)
        return self._answers[server]

    def _probe(self, server: str) -> str | None:
        # Name resolution obeys no timeout, hence the thread: it is left behind when it hangs.
        answers: list[str | None] = []

        def ask() -> None:
            answers.append(_answer(server, timeout=self._patience))

        thread = threading.Thread(target=ask, daemon=True, name="probe")
        thread.start()
        thread.join(self._patience)
        return answers[0] if answers else f"no answer within {self._patience:g} s"


def fetch(
    url: str,
    checksum_url: str,
    *,
    targets: Mapping[Path, str | None],
    report: Callable[[str], None],
) -> None:
    """Download `url` and make executable files of it, or raise `DownloadError` and leave nothing.

    `targets` maps each file to its member of the archive, or to None where `url` is the program.
    """
    scratch_parent = next(iter(targets)).parent
    try:
        expected = _published_checksum(url, checksum_url)
        with unfinished_folder(scratch_parent) as scratch:
            downloaded = scratch / "download"
            actual = _save(url, downloaded, report=report)
            if actual != expected:
                raise DownloadError(
                    f"{url} has SHA-256 {actual}, but {checksum_url} says {expected};"
                    " nothing of it was kept"
                )
            for target, member in targets.items():
                with replacing(target, mode=0o755) as program:
                    _unpack(downloaded, member, program)
    except (OSError, http.client.HTTPException, tarfile.TarError, KeyError) as error:
        raise DownloadError(f"{url}: {error}") from error


def checksum_in(text: str, *, file_name: str) -> str:
    """The SHA-256 for `file_name` in a checksum file: a bare digest, or lines of digest and name.

    Raises `DownloadError` where there is none or more than one.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    named = {
        words[0].lower()
        for words in lines
        if len(words) == 1 or words[-1].lstrip("*").removeprefix("./") == file_name
    }
    digests = {digest for digest in named if re.fullmatch(r"[0-9a-f]{64}", digest)}
    if len(digests) != 1:
        raise DownloadError(f"the published checksum file names no single SHA-256 for {file_name}")
    return digests.pop()


def _answer(server: str, *, timeout: float) -> str | None:
    request = urllib.request.Request(server, method="HEAD")  # noqa: S310 - URLs come from the catalogue
    try:
        with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310 - see above
            return None
    except urllib.error.HTTPError as answer:
        answer.close()
        return None
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error))


def _published_checksum(url: str, checksum_url: str) -> str:
    with urllib.request.urlopen(checksum_url, timeout=_TIMEOUT) as answer:  # noqa: S310 - see above
        text = answer.read(_BLOCK).decode("utf-8", errors="replace")
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    return checksum_in(text, file_name=name)


def _save(url: str, target: Path, *, report: Callable[[str], None]) -> str:
    digest = hashlib.sha256()
    size = 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer, target.open("wb") as file:  # noqa: S310 - see above
        while block := answer.read(_BLOCK):
            digest.update(block)
            file.write(block)
            size += len(block)
            report(f"{size >> 20} MiB")
        announced = answer.headers.get("Content-Length")
    if announced is not None and int(announced) != size:
        raise DownloadError(f"{url} ended after {size} of {announced} bytes")
    return digest.hexdigest()


def _unpack(archive: Path, member: str | None, target: Path) -> None:
    if member is None:
        shutil.copyfile(archive, target)
        return
    with tarfile.open(archive) as contents:
        source = contents.extractfile(member)
        if source is None:
            raise DownloadError(f"{member} in the archive is not a file")
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)

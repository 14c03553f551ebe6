"""Debian packages from a mirror, through apt: it knows the mirror, its keys and the way there.

apt works in a folder of its own, so this machine's packages and lists are neither read nor changed.
Security updates count as the release itself. Unpacking is `package`'s business.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

RELEASE = "bookworm"
"""Debian 12, whose Python is 3.11."""

_SUITES = (RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security")
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring").with_suffix(".gpg")
_HOOKS = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
_FORMAT = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
_OFFER = re.compile(
    r"^'(?P<url>[^']+)' (?P<name>\S+) \d+ SHA256:(?P<sha256>[0-9a-f]{64})$", re.MULTILINE
)


class DebianError(Exception):
    """The packages cannot be had; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A package file, as the signed lists of the archive describe it."""

    path: Path
    sha256: str


def wanted_packages() -> tuple[str, ...]:
    """The names in packages.txt."""
    lines = files("image").joinpath("packages.txt").read_text().splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def download(
    names: Sequence[str],
    *,
    folder: Path,
    architecture: str,
    sources: str | None = None,
    report: Callable[[str], None],
) -> list[Download]:
    """The newest version of each package, kept in `folder` between calls.

    `sources` is the text of a sources.list that stands for this machine's own, for another mirror
    or a state of the past. Raises `DebianError`. One call at a time in a folder.
    """
    apt = _Apt(folder, architecture)
    apt.prepare(sources if sources is not None else _sources_of_this_machine())
    report("reading Debian's lists")
    apt.update()
    offers = apt.offers(names)
    found = {offer["name"].partition("_")[0] for offer in offers}
    if missing := sorted(set(names) - found):
        raise DebianError(f"Debian {RELEASE} at this mirror has no {', '.join(missing)}")
    report(f"downloading {len(offers)} packages of Debian")
    apt.download(names)
    downloads = [apt.taken(offer) for offer in offers]
    apt.forget_all_but(downloads)
    return sorted(downloads, key=lambda download: download.path.name)


class _Apt:
    def __init__(self, folder: Path, architecture: str) -> None:
        self._folder = folder
        self._files = folder / "files"
        self._settings = {
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Architecture": architecture,
            # Root's folders are closed to the user that apt would download as.
            "APT::Sandbox::User": "",
            "Dir::Cache": f"{folder}/cache",
            "Dir::Etc::SourceList": f"{folder}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": f"{folder}/state",
            "Dir::State::Status": f"{folder}/status",
        }

    def prepare(self, sources: str) -> None:
        for name in ("state/lists/partial", "cache/archives/partial", "files"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        (self._folder / "sources.list").write_text(sources)
        (self._folder / "status").touch()
        # Hooks of this machine, such as those that empty its cache, are no business of ours.
        hooks = "".join(f"#clear APT::Update::{name};\n" for name in _HOOKS)
        (self._folder / "apt.conf").write_text(hooks)

    def update(self) -> None:
        self._get("update", "--error-on=any", folder=self._folder)

    def offers(self, names: Sequence[str]) -> list[re.Match[str]]:
        # Not where the files are: apt is silent about those that it finds.
        told = self._get("--print-uris", "download", *names, folder=self._folder)
        return list(_OFFER.finditer(told))

    def download(self, names: Sequence[str]) -> None:
        self._get("download", *names, folder=self._files)

    def forget_all_but(self, downloads: Sequence[Download]) -> None:
        for path in set(self._files.glob("*.deb")) - {download.path for download in downloads}:
            path.unlink()

    def _get(self, *arguments: str, folder: Path) -> str:
        options = [f"-o{name}={value}" for name, value in self._settings.items()]
        configuration = f"-c={self._folder / 'apt.conf'}"
        return _run(["apt-get", configuration, "-q", *options, *arguments], folder=folder)

    def taken(self, offer: re.Match[str]) -> Download:
        # apt compares with the signed lists; this tells that the file is the one that it named.
        path = self._files / offer["name"]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 != offer["sha256"]:
            raise DebianError(f"{path} is not what the archive describes; remove it and try again")
        return Download(path=path, sha256=sha256)


def _sources_of_this_machine() -> str:
    told = _run(["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"])
    options = f"[signed-by={_KEYS}] " if _KEYS.exists() else ""
    rows = [line.split("|") for line in dict.fromkeys(told.splitlines())]
    lines = [
        f"deb {options}{uri} {suite} {component}\n"
        for uri, suite, component in rows
        if suite in _SUITES and component == "main"
    ]
    if not any(f" {RELEASE} main" in line for line in lines):
        raise DebianError(
            f"apt on this machine knows no mirror of Debian {RELEASE}; write a sources.list with"
            f" one for {', '.join(_SUITES)}, and name it: make image IMAGE_ARGS=--sources=FILE"
        )
    return "".join(lines)


def _run(command: list[str], *, folder: Path | None = None) -> str:
    try:
        outcome = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise DebianError(
            "the image is made of Debian packages, and apt-get is not on this machine;"
            " use a Debian or Ubuntu, or build image/Dockerfile with a container engine"
        ) from error
    if outcome.returncode != 0:
        verb = next(word for word in command[1:] if not word.startswith("-"))
        raise DebianError(f"apt-get {verb}: {outcome.stderr.strip()[-800:]}")
    return outcome.stdout

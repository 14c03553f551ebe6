"""Getting every named program: found on the machine, else downloaded, else built.

The ways themselves are in the modules beside this one; here is their order and what is said when
all fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from localcluster.files import remove_unfinished
from localcluster.parts.build import Builder, BuildError
from localcluster.parts.catalogue import Group, Part, architecture, catalogue, select
from localcluster.parts.download import DownloadError, Network, fetch
from localcluster.parts.installed import cached_path, find
from localcluster.parts.locks import exclusive
from localcluster.parts.progress import Progress
from localcluster.settings import Settings
from localcluster.toolchain import ToolchainError


class PartsUnavailable(Exception):
    """A program is not on the machine and can be neither downloaded nor built."""


def ensure(names: Iterable[str], *, settings: Settings, progress: Progress) -> Mapping[str, Path]:
    """The path of each named program, obtained where needed.

    Raises `UnknownPart` for a name that is not in the catalogue, `PartsUnavailable` when every way
    failed.
    """
    parts = select(catalogue(architecture()), frozenset(names))
    found = {part.name: path for part in parts if (path := find(part, settings))}
    provider = _Provider(settings, progress=progress)
    for group in dict.fromkeys(part.group for part in parts if part.name not in found):
        missing = [part for part in parts if part.group == group and part.name not in found]
        found |= provider.provide(group, missing)
    return found


class _Provider:
    """Fills the cache; knows for one run which servers answer."""

    def __init__(self, settings: Settings, *, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._network = Network()
        self._builder = Builder(settings, progress=progress)

    def provide(self, group: Group, parts: list[Part]) -> dict[str, Path]:
        """Put `parts` of one group into the cache, holding the group's lock."""
        folder = self._settings.cache / "parts" / group.folder
        waiting = f"another run is getting {group.name} {group.version}; waiting for it"
        with exclusive(
            folder.with_name(f"{folder.name}.lock"), waiting=lambda: self._progress.note(waiting)
        ):
            folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder)
            # The holder before us may have got some.
            wanted = [part for part in parts if not cached_path(part, self._settings).exists()]
            failures = self._download(wanted)
            for part in wanted:
                if not cached_path(part, self._settings).exists():
                    self._build(part, failures)
        return {part.name: cached_path(part, self._settings) for part in parts}

    def _download(self, parts: list[Part]) -> dict[str, str]:
        """Try to download `parts`, each file once; why not, by part name."""
        failures: dict[str, str] = {}
        releases = dict.fromkeys(
            (part.release.url, part.release.checksum_url) for part in parts if part.release
        )
        for url, checksum_url in releases:
            members = {
                cached_path(part, self._settings): part.release.member
                for part in parts
                if part.release and part.release.url == url
            }
            obstacle = self._fetch(url, checksum_url, members)
            failures |= {path.name: obstacle for path in members if obstacle}
        return failures

    def _fetch(self, url: str, checksum_url: str, members: Mapping[Path, str | None]) -> str | None:
        obstacle = self._network.obstacle(url)
        if obstacle:
            return f"{url}: {obstacle}"
        try:
            what = f"download {', '.join(path.name for path in members)}"
            with self._progress.task(what) as report:
                fetch(url, checksum_url, targets=members, report=report)
        except DownloadError as error:
            self._progress.note(f"{error}")
            return str(error)
        return None

    def _build(self, part: Part, failures: Mapping[str, str]) -> None:
        try:
            what = f"build {part.name} {part.group.version}"
            with self._progress.task(what) as report:
                self._builder.build(part, cached_path(part, self._settings), report=report)
        except (BuildError, ToolchainError, OSError) as error:
            raise PartsUnavailable(_advice(part, failures.get(part.name), error)) from error


def _advice(part: Part, download: str | None, build: Exception) -> str:
    return "\n".join(
        [
            f"{part.name} {part.group.version} cannot be had:",
            f"  download: {download or 'no checksum is published for it, so it is only built'}",
            f"  build of {part.package}: {build}",
            "Give this machine access to one of them, or put the program into a folder of your"
            " choice and name that folder in KUBEBUILDER_ASSETS.",
        ]
    )

"""Certificates for tests, made by the code under test and put on disk as Secrets are mounted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from certs.authority import KeyPair, Subject, Usage, issue, new_authority

DAY = timedelta(days=1)


def authority(*, now: datetime | None = None) -> KeyPair:
    return new_authority(now=now or datetime.now(UTC), lifetime=365 * DAY)


def server(ca: KeyPair, *, name: str = "server", now: datetime | None = None) -> KeyPair:
    subject = Subject(
        common_name=name, usage=Usage.SERVER, hosts=frozenset({"localhost", "127.0.0.1"})
    )
    return issue(ca, subject, now=now or datetime.now(UTC), lifetime=30 * DAY)


def client(ca: KeyPair, *, name: str = "client") -> KeyPair:
    subject = Subject(common_name=name, usage=Usage.CLIENT)
    return issue(ca, subject, now=datetime.now(UTC), lifetime=30 * DAY)


_END = b"-----END CERTIFICATE-----\n"


def split(bundle: bytes) -> list[bytes]:
    """Return the certificates of a PEM bundle one by one."""
    return [part + _END for part in bundle.split(_END) if part]


class Mounted:
    """A folder with tls.crt, tls.key and ca.crt that changes as kubelet changes it.

    The files are symlinks through `..data`, and a new version swaps that one link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def cert_file(self) -> str:
        return str(self.folder / "tls.crt")

    @property
    def key_file(self) -> str:
        return str(self.folder / "tls.key")

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.crt")

    def put(self, pair: KeyPair, *, trusted: bytes = b"") -> None:
        """Show new content, all files at once."""
        self._version += 1
        version = self.folder / f"..{self._version}"
        version.mkdir()
        for name, content in self._content(pair, trusted):
            (version / name).write_bytes(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self.folder / "..data")

    def _content(self, pair: KeyPair, trusted: bytes) -> list[tuple[str, bytes]]:
        return [("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", trusted)]

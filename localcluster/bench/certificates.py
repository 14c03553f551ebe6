"""Certificates of the stub, laid out as gpudetour's are: a folder for each holder."""

from __future__ import annotations

import shutil
from pathlib import Path

from localcluster.pki import Authority, KeyPair


class Certificates:
    """A server and its only client, both signed by an authority of their own, below `folder`."""

    def __init__(self, folder: Path, *, host: str, client_name: str) -> None:
        self._folder = folder
        self._host = host
        self._client_name = client_name
        self.server = folder / "server"
        self.client = folder / "client"

    @property
    def client_pair(self) -> KeyPair:
        """The client's certificate and key."""
        return KeyPair(certificate=self.client / "tls.crt", key=self.client / "tls.key")

    def issue(self) -> None:
        """Write tls.crt, tls.key and ca.crt for both."""
        self._folder.mkdir()
        authority = Authority(self._folder)
        authority.create()
        server = authority.issue("server", common_name=self._host, hosts=[self._host])
        client = authority.issue("client", common_name=self._client_name)
        self._lay_out(self.server, server, authority)
        self._lay_out(self.client, client, authority)

    def _lay_out(self, target: Path, pair: KeyPair, authority: Authority) -> None:
        target.mkdir()
        pair.certificate.rename(target / "tls.crt")
        pair.key.rename(target / "tls.key")
        shutil.copyfile(authority.certificate, target / "ca.crt")

"""Downloads from a real HTTP server: kept only when they are what was published."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localcluster.parts.download import DownloadError, Network, checksum_in, fetch

PROGRAM = b"#!/bin/sh\necho downloaded\n"
DIGEST = hashlib.sha256(PROGRAM).hexdigest()


@dataclass
class Site:
    """A server with files; `cut` makes it promise more than it sends."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: bool = False


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(address="")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = site.files.get(self.path)
            self.send_response(404 if content is None else 200)
            size = len(content or b"") + (1000 if site.cut and self.path == "/program" else 0)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            self.wfile.write(content or b"")

        def do_HEAD(self) -> None:
            self.send_error(405)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield site
        server.shutdown()
        thread.join()


def download(site: Site, target: Path, member: str | None = None) -> None:
    fetch(
        f"{site.address}/program",
        f"{site.address}/sums",
        targets={target: member},
        report=lambda _detail: None,
    )


def test_a_program_with_the_published_checksum_can_be_run(site: Site, tmp_path: Path) -> None:
    site.files = {"/program": PROGRAM, "/sums": f"{DIGEST}\n".encode()}

    download(site, tmp_path / "program")

    said = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    assert said.stdout == "downloaded\n"
    assert names_in(tmp_path) == ["program"]


def test_a_program_with_another_checksum_is_refused_and_nothing_is_kept(
    site: Site, tmp_path: Path
) -> None:
    site.files = {"/program": PROGRAM + b"\n", "/sums": f"{DIGEST}\n".encode()}

    with pytest.raises(DownloadError, match=DIGEST):
        download(site, tmp_path / "program")

    assert names_in(tmp_path) == []


def test_a_download_that_ends_early_is_refused(site: Site, tmp_path: Path) -> None:
    site.files = {"/program": PROGRAM, "/sums": f"{DIGEST}\n".encode()}
    site.cut = True

    with pytest.raises(DownloadError):
        download(site, tmp_path / "program")

    assert names_in(tmp_path) == []


def test_without_a_published_checksum_nothing_is_downloaded(site: Site, tmp_path: Path) -> None:
    site.files = {"/program": PROGRAM}

    with pytest.raises(DownloadError, match="404"):
        download(site, tmp_path / "program")

    assert names_in(tmp_path) == []


def test_a_failed_download_leaves_the_older_file_as_it_was(site: Site, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("older")
    site.files = {"/program": b"other", "/sums": DIGEST.encode()}

    with pytest.raises(DownloadError):
        download(site, tmp_path / "program")

    assert (tmp_path / "program").read_text() == "older"


def test_programs_are_taken_out_of_an_archive(site: Site, tmp_path: Path) -> None:
    archive = archive_of({"bin/program": PROGRAM, "README": b"no program"})
    digest = hashlib.sha256(archive).hexdigest()
    site.files = {"/program": archive, "/sums": f"{digest}  program\n".encode()}

    download(site, tmp_path / "taken", member="bin/program")

    assert (tmp_path / "taken").read_bytes() == PROGRAM
    assert os.access(tmp_path / "taken", os.X_OK)


def test_an_archive_without_the_program_is_refused(site: Site, tmp_path: Path) -> None:
    archive = archive_of({"README": b"no program"})
    site.files = {
        "/program": archive,
        "/sums": hashlib.sha256(archive).hexdigest().encode(),
    }

    with pytest.raises(DownloadError, match="bin/program"):
        download(site, tmp_path / "taken", member="bin/program")

    assert names_in(tmp_path) == []


def test_a_server_that_answers_anything_is_reachable(site: Site) -> None:
    assert Network().obstacle(f"{site.address}/program") is None


def test_a_closed_port_is_an_obstacle() -> None:
    assert Network().obstacle("http://127.0.0.1:1/program") is not None


def test_a_silent_server_costs_its_patience_once() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/program"
        network = Network(patience=0.3)
        started = time.monotonic()

        assert network.obstacle(url) is not None
        assert network.obstacle(url) is not None

        assert time.monotonic() - started < 2


OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(DIGEST, id="a bare digest"),
        pytest.param(f"{DIGEST}  program\n{OTHER}  other\n", id="several files"),
        pytest.param(f"{DIGEST} *program\n", id="binary mode"),
        pytest.param(f"{DIGEST}  ./program\n", id="with a path"),
        pytest.param(f"{DIGEST.upper()}  program\n", id="capitals"),
        pytest.param(
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{DIGEST}  program\n"
            "-----BEGIN PGP SIGNATURE-----\n\niQIzBAEBCAAdFiEE\n-----END PGP SIGNATURE-----\n",
            id="signed",
        ),
    ],
)
def test_checksum_files_of_all_used_forms_are_read(text: str) -> None:
    assert checksum_in(text, file_name="program") == DIGEST


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("<html>Not found</html>", id="no checksum file"),
        pytest.param(f"{OTHER}  other\n", id="only other files"),
        pytest.param(f"{DIGEST}  program\n{OTHER}  program\n", id="two answers"),
    ],
)
def test_checksum_files_without_a_clear_answer_are_refused(text: str) -> None:
    with pytest.raises(DownloadError):
        checksum_in(text, file_name="program")


def archive_of(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]

"""What is in the real image, and what is not."""

from __future__ import annotations

import posixpath
import re
import struct
import tarfile
from pathlib import Path

import pytest

from image.configuration import configuration
from image.debian import wanted_packages
from image.product import read_project
from image.wheels import PYTHON, SITE
from localcluster.image.product import CHECKOUT
from tests.image.opened import Opened, open_image

Files = dict[str, tuple[tarfile.TarInfo, bytes]]
_MIB = 1 << 20


@pytest.fixture(scope="module")
def opened(product_image: Path) -> Opened:
    return open_image(product_image)


@pytest.fixture(scope="module")
def files(opened: Opened) -> Files:
    return opened.files()


def resolved(files: Files, path: str) -> str:
    """The path with all links followed, as the kernel would in the image."""
    done = ""
    for part in path.strip("/").split("/"):
        step = posixpath.normpath(posixpath.join(done, part)).lstrip("/")
        entry = files.get(step)
        if entry and entry[0].issym():
            target = entry[0].linkname
            base = "" if target.startswith("/") else posixpath.dirname(step)
            step = resolved(files, posixpath.normpath(posixpath.join("/", base, target)))
        done = step
    return done


def needed(program: bytes) -> tuple[set[str], str]:
    """The libraries that a 64-bit little-endian ELF file names, and where it says they lie."""
    offset, size, number = (
        *struct.unpack_from("<Q", program, 32),
        *struct.unpack_from("<HH", program, 54),
    )
    headers: list[tuple[int, ...]] = [
        struct.unpack_from("<IIQQQQQQ", program, offset + size * n) for n in range(number)
    ]

    def place(address: int) -> int:
        return next(
            h[2] + address - h[3] for h in headers if h[0] == 1 and h[3] <= address < h[3] + h[5]
        )

    dynamic = next((h for h in headers if h[0] == 2), None)
    if dynamic is None:
        return set(), ""
    entries = list(struct.iter_unpack("<QQ", program[dynamic[2] : dynamic[2] + dynamic[5]]))
    strings = place(next(value for tag, value in entries if tag == 5))

    def text(at: int) -> str:
        return program[strings + at : program.index(b"\0", strings + at)].decode()

    where = next((text(value) for tag, value in entries if tag in (15, 29)), "")
    return {text(value) for tag, value in entries if tag == 1}, where


def test_it_is_small(files: Files) -> None:
    assert sum(len(content) for _, content in files.values()) < 130 * _MIB


def test_nothing_in_it_is_a_way_in(files: Files) -> None:
    programs = {path for path in files if re.fullmatch(r"(usr/)?(local/)?s?bin/.+", path)}

    named = {"python", "python3", f"python{PYTHON}", *read_project(CHECKOUT).scripts}
    assert programs == {f"usr/bin/{name}" for name in named}
    assert [path for path, (entry, _) in files.items() if entry.mode & 0o6000] == []
    writable = [path for path, (e, _) in files.items() if e.mode & 0o022 and not e.issym()]
    assert writable == ["tmp"]


def test_nothing_in_it_is_of_one_machine(files: Files) -> None:
    assert {(e.uid, e.gid, e.mtime) for e, _ in files.values()} == {(0, 0, 0)}
    assert not {
        path for path in files if re.search(r"machine-id|ld\.so\.cache|var/(log|cache)|\.git", path)
    }
    # Compiled modules name a hash of their source and are not compared with it (PEP 552).
    compiled = [content for path, (_, content) in files.items() if path.endswith(".pyc")]
    assert len(compiled) > 1000
    assert {struct.unpack_from("<I", content, 4)[0] for content in compiled} == {0b01}


def test_tests_and_the_tools_of_this_checkout_are_not_in_it(files: Files) -> None:
    ours = {path.removeprefix(f"{SITE}/").split("/")[0] for path in files if path.startswith(SITE)}

    assert {"webhook", "extender", "nodeagent", "certs", "cli", "doctor"} <= ours
    assert not {"localcluster", "image", "release", "tests"} & ours


def test_nvidia_ml_py_is_in_it_but_no_driver(files: Files) -> None:
    assert f"{SITE}/pynvml.py" in files
    assert not [path for path in files if re.search(r"libnvidia|libcuda", path)]


def test_every_library_finds_those_that_it_needs(files: Files) -> None:
    folders = {
        posixpath.dirname(path)
        for path in files
        if re.fullmatch(r"usr/lib/[^/]+/lib.*\.so.*", path)
    }
    missing = []
    for path, (_, content) in files.items():
        if not content.startswith(b"\x7fELF"):
            continue
        names, where = needed(content)
        own = where.replace("$ORIGIN", posixpath.dirname(path)).split(":")
        for name in names:
            places = [*own, *folders, "usr/lib64", "usr/lib"]
            if not any(resolved(files, f"{place}/{name}") in files for place in places if place):
                missing.append(f"{path} needs {name}")

    assert missing == []


def test_every_link_leads_somewhere(files: Files) -> None:
    broken = [p for p, (e, _) in files.items() if e.issym() and resolved(files, p) not in files]

    assert [path for path in broken if not path.startswith("usr/share/doc/")] == []


def test_every_debian_package_is_told_and_keeps_its_licence(files: Files) -> None:
    for name in wanted_packages():
        _, paragraph = files[f"var/lib/dpkg/status.d/{name}"]
        assert f"Package: {name}\n".encode() in paragraph
        licence = resolved(files, f"usr/share/doc/{name}/copyright")
        assert licence in files, name


def test_it_runs_as_the_configuration_says(opened: Opened) -> None:
    wanted = configuration(read_project(CHECKOUT))

    assert opened.config["config"] == {
        "Env": [f"{name}={value}" for name, value in wanted.environment.items()],
        "Entrypoint": ["/usr/bin/gpudetour"],
        "Cmd": ["--help"],
        "User": "65532:65532",
        "WorkingDir": "/",
        "Labels": dict(wanted.labels),
    }

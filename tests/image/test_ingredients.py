"""Debian packages and wheels, as they are read: what is taken, and what is refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from image.contents import USER, debian_tree, taken, wheels_tree
from image.debian import DebianError, download, wanted_packages
from image.licences import is_spdx, of_debian, of_wheel
from image.package import Package, PackageError, read_package
from image.platforms import this_processor
from image.product import ProductError, Project, product_tree, read_project
from image.tree import File, Folder, Link
from image.wheels import SITE, WheelError, read_wheel
from image.wheels import download as download_wheels

CONTROL = (
    b"Package: libtool\nVersion: 1:2.0-1+b1\nSource: tool\nMaintainer: A <a@example.invalid>\n"
)
COPYRIGHT = b"Format: https://example.invalid\nLicense: Expat\n text\n\nLicense: GPL-2+\n"


def tar_xz(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o755
    return info


def deb(**members: bytes) -> bytes:
    """An ar archive (deb(5)); names have a point where keywords have an underscore."""
    archive = b"!<arch>\n"
    for keyword, data in members.items():
        name = keyword.replace("_", ".").encode()
        archive += b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(data))
        archive += data + b"\n" * (len(data) % 2)
    return archive


def package(*entries: tuple[tarfile.TarInfo, bytes]) -> Package:
    control = tar_xz((entry("./control"), CONTROL))
    return read_package(
        deb(debian_binary=b"2.0\n", control_tar_xz=control, data_tar_xz=tar_xz(*entries))
    )


def wheel(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


METADATA = {
    "a-1.dist-info/METADATA": b"Metadata-Version: 2.4\nName: A_b.c\nVersion: 1\nLicense: MIT\n"
}


def test_a_package_is_read_with_its_links_and_licences() -> None:
    found = package(
        (entry("./lib/x/libtool.so.1"), b"code"),
        (entry("./lib/x/libtool.so", tarfile.SYMTYPE, "libtool.so.1"), b""),
        (entry("./usr/lib/x/same.so", tarfile.LNKTYPE, "./lib/x/libtool.so.1"), b""),
        (entry("./usr/share/doc/libtool/copyright"), COPYRIGHT),
    )

    assert (found.name, found.version, found.field("Source")) == ("libtool", "1:2.0-1+b1", "tool")
    # /lib is a link into /usr, and a second name of a file is a file.
    assert found.tree["usr/lib/x/libtool.so.1"] == File(b"code", 0o755)
    assert found.tree["usr/lib/x/same.so"] == File(b"code", 0o755)
    assert found.tree["usr/lib/x/libtool.so"] == Link("libtool.so.1")
    assert found.licences() == ("Expat", "GPL-2+")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not begin"),
        (b"<html>not found</html>", "does not begin"),
        (deb(debian_binary=b"2.0\n"), "no control or no data"),
    ],
)
def test_what_is_no_package_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(PackageError, match=words):
        read_package(data)


def test_devices_in_packages_are_refused() -> None:
    with pytest.raises(PackageError, match="neither file"):
        package((entry("./dev/x", tarfile.CHRTYPE), b""))


def test_the_image_takes_libraries_and_licences_but_no_programs() -> None:
    found = package(
        (entry("./bin/sh"), b"shell"),
        (entry("./usr/share/man/man1/sh.1.gz"), b"manual"),
        (entry("./usr/share/doc/libtool/copyright"), COPYRIGHT),
        (entry("./usr/share/doc/libtool/changelog.gz"), b"news"),
        (entry("./lib/x/libtool.so.1"), b"code"),
    )
    tree = debian_tree([found])

    files = {path for path, item in tree.items() if isinstance(item, File)}
    assert files == {
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "usr/lib/x/libtool.so.1",
        "usr/share/doc/libtool/copyright",
        "var/lib/dpkg/status.d/libtool",
    }
    assert tree["tmp"] == Folder(0o1777)
    assert tree["bin"] == Link("usr/bin")
    assert f":{USER}:{USER}:".encode() in getattr(tree["etc/passwd"], "content", b"")


def test_a_wheel_goes_where_python_looks() -> None:
    found = read_wheel(
        "a.whl",
        wheel(
            {
                "a/__init__.py": b"",
                "a/tests/test_a.py": b"",
                "a/a.pyi": b"",
                "a-1.data/platlib/b.so": b"code",
                "a-1.data/scripts/a": b"#!python\n",
                **METADATA,
            }
        ),
    )

    assert (found.name, found.version, found.licence) == ("a-b-c", "1", "MIT")
    files = {path for path, item in wheels_tree([found]).items() if isinstance(item, File)}
    assert files == {f"{SITE}/a/__init__.py", f"{SITE}/b.so", f"{SITE}/a-1.dist-info/METADATA"}


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.py", "a/../../b.py"])
def test_a_wheel_cannot_write_elsewhere(name: str) -> None:
    with pytest.raises(WheelError, match="wants to write"):
        read_wheel("a.whl", wheel({name: b"", **METADATA}))


def test_a_wheel_without_metadata_is_refused() -> None:
    with pytest.raises(WheelError, match="no metadata"):
        read_wheel("a.whl", wheel({"a.py": b""}))


def test_the_tree_of_the_official_client_is_left_out_with_what_only_it_needs() -> None:
    client = read_wheel(
        "k.whl",
        wheel(
            {
                "kubernetes/config/kube_config.py": b"",
                "kubernetes/client/models/__init__.py": b"",
                "kubernetes/client/models/v1_pod.py": b"",
                "kubernetes/aio/client.py": b"",
                **METADATA,
            }
        ),
    )
    asynchronous = read_wheel(
        "aiohttp.whl", wheel({"x/METADATA": b"", "a.dist-info/METADATA": b"Name: aiohttp\n"})
    )

    assert taken([client, asynchronous]) == (client,)
    kept = {path.removeprefix(f"{SITE}/kubernetes/") for path in wheels_tree([client])}
    assert {"config/kube_config.py", "client/models/__init__.py"} <= kept
    assert not {"client/models/v1_pod.py", "aio/client.py"} & kept


def test_wheels_that_the_lock_does_not_name_are_refused(tmp_path: Path) -> None:
    lock = tmp_path / "runtime.lock"
    lock.write_text("nothing-like-this==1 --hash=sha256:00\n")
    folder = tmp_path / "wheels"
    with pytest.raises(WheelError, match=r"runtime\.lock names"):
        download_wheels(lock, folder=folder, processor=this_processor(), report=print)

    assert not list(folder.iterdir())


def test_a_mirror_that_does_not_answer_is_named(tmp_path: Path) -> None:
    source = f"deb [trusted=yes] file:{tmp_path}/nowhere bookworm main\n"
    with pytest.raises(DebianError, match=r"apt-get update: .*nowhere"):
        download(
            wanted_packages(),
            folder=tmp_path / "apt",
            architecture=this_processor().name,
            sources=source,
            report=print,
        )


def test_an_empty_checkout_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="is no checkout"):
        read_project(tmp_path)


def test_our_part_holds_sources_data_and_commands_but_nothing_hidden(tmp_path: Path) -> None:
    for name in ("LICENSE", "cli/a.py", "cli/page.html", "cli/.secret", "cli/__pycache__/a.pyc"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    project = Project(
        name="gpudetour",
        version="9.8",
        description="d",
        licence="Apache-2.0",
        scripts={"gpudetour": "cli.__main__:main"},
        dependencies=("click>=8",),
        python=">=3.11",
        packages=("cli",),
    )
    tree = product_tree(tmp_path, project)

    info = f"{SITE}/gpudetour-9.8.dist-info"
    assert set(tree) == {
        "usr/bin/gpudetour",
        f"{SITE}/cli/a.py",
        f"{SITE}/cli/page.html",
        f"{info}/METADATA",
        f"{info}/licenses/LICENSE",
    }
    script = tree["usr/bin/gpudetour"]
    assert isinstance(script, File)
    assert script.mode == 0o755
    assert b"from cli.__main__ import main" in script.content


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 OR BSD-3-Clause", True),
        ("MIT AND (Apache-2.0 OR ISC)", True),
        (of_debian(("Expat", "GPL-2+")), True),
        (of_wheel("License :: OSI Approved :: MIT License"), True),
        (of_wheel("BSD"), False),
        (of_debian(("BSD-variant",)), False),
        ("MIT Apache-2.0", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_only_known_licences_are_declared(expression: str, expected: bool) -> None:
    assert is_spdx(expression) is expected

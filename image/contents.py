"""Which files an image takes, and what stands in for Debian's maintainer scripts. Pure.

There is no shell, no apt and no perl: nothing in the image starts another program, but for
nvidia-smi on the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from image.package import MERGED_LINKS, Package
from image.tree import Entry, File, Folder, Link, Tree, merge, without_empty_folders
from image.wheels import PYTHON, Wheel

USER = 65532
"""User and group of the processes, and their customary number where nobody has a name."""

_PYTHON_HOME = f"usr/lib/python{PYTHON}"

_NOT_OF_DEBIAN = re.compile(
    r"""
      usr/share/(?!doc/|common-licenses/).*      # manuals, locales, printers of a debugger
    | usr/share/doc/[^/]+/(?!copyright$).*       # licences stay
    | etc/(?!debian_version$|host\.conf$|issue$|os-release$|python3|ssl/).*
    | usr/lib/[^/]+/(gconv|audit|engines-3)/.*   # converters are for iconv, which nothing calls
    | usr/lib/[^/]+/lib(c_malloc_debug|memusage|pcprofile|nss_compat|nss_hesiod)\.so.*
    | usr/(local/)?s?bin/(?!python).*
    | .*/lib-dynload/(
        _(crypt|curses|curses_panel|dbm|sqlite3|uuid|tkinter)   # their libraries are not here
      | nis|readline|ossaudiodev
      | _(ctypes_test|test\w+|xxtestfuzz)|xxlimited\w*
      )\..*
    """,
    re.VERBOSE,
)

_NOT_OF_PYTHON = re.compile(
    rf"{_PYTHON_HOME}/(curses|dbm|distutils|ensurepip|idlelib|lib2to3|pydoc_data|sqlite3|tkinter"
    r"|turtledemo|turtle\.py|config-.*|test/.*|.*\.exe)(/.*)?"
)

_NOT_OF_WHEELS = re.compile(
    r"""
      .*\.(pyi|pyx|pxd|pxi|c|h|hpp|typed)
    | .*/(tests?|e2e_test)/.*
    | .*/\w+_test\.py
    | .*/kubernetes/(aio|client/api|client/models)/(?!__init__\.py).*
    """,
    re.VERBOSE,
)
"""The official client only reads kubeconfig files here; it loads the rest by name when asked."""

_NOT_TAKEN = frozenset(
    {
        "aiohappyeyeballs",
        "aiohttp",
        "aiohttp-retry",
        "aiosignal",
        "attrs",
        "frozenlist",
        "multidict",
        "propcache",
        "yarl",
    }
)
"""Locked wheels that only `kubernetes.aio` imports."""

_ACCOUNTS = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        f"gpudetour:x:{USER}:{USER}:gpudetour:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": f"root:x:0:\nnogroup:x:65534:\ngpudetour:x:{USER}:\n",
    # The order that Debian's installer writes; the C library's own asks DNS before /etc/hosts.
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

_KEPT = ("dev", "home", "proc", "root", "run", "sys", "tmp", "usr/sbin")
"""Empty folders that stay: what runtimes and manifests mount over, and where links lead."""

_LINKS = {
    "usr/bin/python3": Link(f"python{PYTHON}"),
    "usr/bin/python": Link("python3"),
}


def debian_tree(packages: Iterable[Package]) -> Tree:
    """The files of the Debian packages that the image takes, and what says which packages those
    are, where scanners look in an image without dpkg (/var/lib/dpkg/status.d).
    """
    packages = tuple(packages)
    accounts: Tree = {path: File(text.encode()) for path, text in _ACCOUNTS.items()}
    status: Tree = {
        f"var/lib/dpkg/status.d/{package.name}": File(package.control.encode())
        for package in packages
    }
    files = (_without(package.tree, _NOT_OF_DEBIAN, _NOT_OF_PYTHON) for package in packages)
    whole: dict[str, Entry] = merge(MERGED_LINKS, _LINKS, accounts, status, *files)
    whole |= {"tmp": Folder(0o1777), "root": Folder(0o700)}
    return without_empty_folders(whole, keep=_KEPT)


def taken(wheels: Iterable[Wheel]) -> tuple[Wheel, ...]:
    """Those of the locked wheels that the image holds."""
    return tuple(wheel for wheel in wheels if wheel.name not in _NOT_TAKEN)


def wheels_tree(wheels: Iterable[Wheel]) -> Tree:
    """The files of the wheels that the image takes."""
    return without_empty_folders(merge(*(_without(wheel.tree, _NOT_OF_WHEELS) for wheel in wheels)))


def _without(tree: Tree, *patterns: re.Pattern[str]) -> Tree:
    return {
        path: entry
        for path, entry in tree.items()
        if isinstance(entry, Folder) or not any(pattern.fullmatch(path) for pattern in patterns)
    }

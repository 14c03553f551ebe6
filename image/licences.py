"""Licences as packages tell them, in SPDX's terms. Pure.

Only what is certain is translated: a wrong licence is worse than none.
"""

from __future__ import annotations

_IDENTIFIERS = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "GPL-2.0-only",
        "GPL-2.0-or-later",
        "GPL-3.0-only",
        "GPL-3.0-or-later",
        "ISC",
        "LGPL-2.0-or-later",
        "LGPL-2.1-only",
        "LGPL-2.1-or-later",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)

_DEBIAN = {
    "BSD-2-clause": "BSD-2-Clause",
    "BSD-3-clause": "BSD-3-Clause",
    "Expat": "MIT",
    "GPL-2": "GPL-2.0-only",
    "GPL-2+": "GPL-2.0-or-later",
    "GPL-3": "GPL-3.0-only",
    "GPL-3+": "GPL-3.0-or-later",
    "LGPL-2+": "LGPL-2.0-or-later",
    "LGPL-2.1": "LGPL-2.1-only",
    "LGPL-2.1+": "LGPL-2.1-or-later",
}
"""Short names of machine-readable copyright files (DEP 5) that differ from SPDX's."""

_WHEELS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Free texts and classifiers of wheels that can mean one licence only."""


def of_debian(names: tuple[str, ...]) -> str:
    """The expression for the licences of a package's files, all of which apply; perhaps not
    SPDX's, see `is_spdx`.
    """
    return " AND ".join(_DEBIAN.get(name, name) for name in names)


def of_wheel(told: str) -> str:
    """The expression for what a wheel's metadata tells; perhaps not SPDX's, see `is_spdx`."""
    return _WHEELS.get(told, told)


def is_spdx(expression: str) -> bool:
    """Whether an expression consists of known identifiers, joined as SPDX joins them."""
    words = expression.replace("(", " ").replace(")", " ").split()
    return (
        len(words) % 2 == 1
        and all(word in _IDENTIFIERS for word in words[::2])
        and all(word in {"AND", "OR"} for word in words[1::2])
    )

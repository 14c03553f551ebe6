"""CHANGELOG.md: whether it tells of a version, and what. Pure.

The form is that of keepachangelog.com: a heading for each version, the newest first.
"""

from __future__ import annotations

import re

_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\] - (?P<date>\d{4}-\d{2}-\d{2})$", re.MULTILINE)


class ChangelogError(Exception):
    """The changelog does not begin with the version that is released."""


def notes(text: str, *, version: str) -> str:
    """What the changelog says of `version`, which must be its newest; raises `ChangelogError`."""
    headings = list(_HEADING.finditer(text))
    newest = headings[0]["version"] if headings else "nothing"
    if newest != version:
        raise ChangelogError(
            f"pyproject.toml has version {version}, but CHANGELOG.md begins with {newest}: write"
            f" what changed below a heading `## [{version}] - YYYY-MM-DD`"
        )
    end = headings[1].start() if len(headings) > 1 else len(text)
    return text[headings[0].start() : end].strip() + "\n"

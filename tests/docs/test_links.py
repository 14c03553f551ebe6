"""Links within the docs lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, links, pages

_ELSEWHERE = ("https://", "http://", "mailto:")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    dead = [target for target in links(page) if not _leads_somewhere(page, target)]

    assert dead == []


def _leads_somewhere(page: Path, target: str) -> bool:
    if target.startswith(_ELSEWHERE):
        return True
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    if not found.exists() or not found.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(found)


def test_the_headings_of_a_page_are_found() -> None:
    assert "the-program-and-the-image" in anchors(ROOT / "docs" / "install" / "README.md")


def test_a_dead_link_would_be_noticed() -> None:
    page = ROOT / "docs" / "install" / "README.md"

    assert not _leads_somewhere(page, "k3s.md#no-such-heading")
    assert not _leads_somewhere(page, "nowhere.md")

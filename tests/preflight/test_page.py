"""The page of preflight holds the table of its checks."""

from __future__ import annotations

from doctor.report import catalogue
from preflight.catalogue import CHECKS
from tests.docs.pages import ROOT


def test_the_page_holds_the_table_of_all_checks() -> None:
    page = ROOT / "docs" / "install" / "preflight.md"

    assert catalogue(CHECKS) in page.read_text()

"""docs/troubleshooting.md leaves out no message, cause or check, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doctor.checks.catalogue import CHECKS
from explain.causes import Cause
from explain.refusals import cause_of
from extender.placement.reasons import Reason
from localcluster import shipped
from localcluster.shipped import Variant
from tests.doctor.errors import ERROR_1, ERROR_2, ERROR_3, ERROR_4, ERROR_5, ERROR_6
from tests.explain.messages import longest_part, templates

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "troubleshooting.md").read_text()
FLAT = " ".join(PAGE.split())
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as they are made for links."""
    titles = HEADING.findall(page)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def policy_messages() -> list[str]:
    return [
        " ".join(validation["message"].split())
        for variant in Variant
        for policy in shipped.objects("ValidatingAdmissionPolicy", variant=variant)
        for validation in policy["spec"]["validations"]
    ]


@pytest.mark.parametrize("cause", Cause, ids=lambda cause: cause.id)
def test_every_cause_has_a_section_by_its_name(cause: Cause) -> None:
    assert f"### {cause.id}\n" in PAGE


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_every_reason_of_the_extender_is_in_its_table(reason: Reason) -> None:
    assert f"| `{reason.text}` |" in PAGE


@pytest.mark.parametrize("message", templates())
def test_every_text_of_the_webhook_is_there(message: str) -> None:
    assert longest_part(message).replace("`", "'") in FLAT


def test_the_texts_of_the_webhook_are_found_in_the_source() -> None:
    assert len(templates()) >= 30


@pytest.mark.parametrize("message", sorted(set(policy_messages())))
def test_every_text_of_a_policy_is_there_and_is_recognised(message: str) -> None:
    assert message in FLAT
    said = f"ValidatingAdmissionPolicy 'gpudetour-x' with binding 'y' denied request: {message}"
    assert cause_of(said) in (Cause.POLICY, Cause.WEBHOOK_DOWN, Cause.WEBHOOK_UNDONE)


def test_every_check_of_the_doctor_is_listed() -> None:
    listed = PAGE.partition("## What the doctor finds")[2]

    assert [check.id for check in CHECKS if f"`{check.id}`" not in listed] == []
    assert set(re.findall(r"`([a-z0-9-]+)`", listed.partition("|---|---|")[2])) == {
        check.id for check in CHECKS
    }


def test_the_six_errors_are_found_by_their_log_lines() -> None:
    section = PAGE.partition("## The six errors")[2].partition("\n## ")[0]
    rows = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    logs = (ERROR_1, ERROR_2, ERROR_3, ERROR_4.format("nvml"), ERROR_5, ERROR_6)

    assert len(rows) == len(logs)
    for row, log in zip(rows, logs, strict=True):
        assert re.findall(r"`([^`]+)`", row)[0] in log


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        page = (DOCS / file).read_text() if file else PAGE
        assert not anchor or anchor in anchors(page), target

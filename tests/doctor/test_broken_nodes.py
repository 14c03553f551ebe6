"""One thing is broken in a healthy node's files: the doctor names it first, and nothing else but
what follows from it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from doctor.findings import Outcome
from tests.doctor import cases_driver, cases_runtime
from tests.doctor.cases import Case
from tests.doctor.nodes import HEALTHY, assert_shell

CASES = (*cases_driver.CASES, *cases_runtime.CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_cause_is_told_first_and_nothing_else_is_blamed(case: Case, tmp_path: Path) -> None:
    node = HEALTHY[case.on](tmp_path)
    case.break_it(node)

    diagnosis = node.diagnosis()

    first, *others = diagnosis.of(Outcome.BROKEN)
    assert first.check.id == case.first
    assert {found.check.id for found in others} == case.then
    assert all(found.because_of == (case.first,) for found in others)
    assert diagnosis.of(Outcome.WARNING) == ()
    assert case.saw in first.result.saw
    assert any(case.mend in command for command in first.result.mend), first.result.mend
    assert_shell(first.result.mend)

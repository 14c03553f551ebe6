"""Which scheduler a pod that asks for GPUs is given, where GPUs are placed by a second one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.webhook.mutating import mutator
from tests.webhook.reviews import pod
from webhook.mutate import Mutated, Mutator, Refused

OURS = "gpudetour-scheduler"


def second() -> Mutator:
    plain = mutator()
    return replace(plain, policy=replace(plain.policy, scheduler_name=OURS))


@pytest.mark.parametrize("named", [{}, {"schedulerName": "default-scheduler"}])
def test_a_pod_that_names_no_other_scheduler_is_given_ours_and_nobody_is_warned(
    named: dict[str, str],
) -> None:
    outcome = second().mutate(pod(**named))

    assert isinstance(outcome, Mutated)
    assert outcome.pod["spec"]["schedulerName"] == OURS
    assert outcome.warnings == ()
    assert second().mutate(outcome.pod) == outcome


def test_a_pod_that_names_its_scheduler_keeps_it() -> None:
    outcome = second().mutate(pod(schedulerName="volcano"))

    assert isinstance(outcome, Mutated)
    assert outcome.pod["spec"]["schedulerName"] == "volcano"
    assert outcome.warnings == ()


def test_a_pod_without_gpus_keeps_the_default_scheduler() -> None:
    before = pod(
        containers=[{"name": "main"}], schedulerName="default-scheduler", runtimeClassName="nvidia"
    )

    outcome = second().mutate(before)

    assert isinstance(outcome, Mutated)
    assert outcome.pod["spec"]["schedulerName"] == "default-scheduler"


def test_without_a_second_scheduler_the_name_is_left_alone() -> None:
    outcome = mutator().mutate(pod(schedulerName="default-scheduler"))

    assert isinstance(outcome, Mutated)
    assert outcome.pod["spec"]["schedulerName"] == "default-scheduler"


def test_a_scheduler_name_that_is_no_text_is_refused() -> None:
    assert isinstance(second().mutate(pod(schedulerName=7)), Refused)

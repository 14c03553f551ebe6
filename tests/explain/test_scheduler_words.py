"""What kube-scheduler said is read back as it was meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explain.causes import Cause
from explain.scheduler_words import OF_REASON, counts_gpus, failure, reasons
from extender.placement.reasons import Reason

URL = "https://10.96.0.51:443"


def test_every_reason_of_the_extender_is_found_again_with_its_count() -> None:
    texts = {reason.text: reason for reason in Reason}
    told = ", ".join(f"{count} {text}" for count, text in enumerate(texts, start=2))
    message = f"0/99 nodes are available: {told}. preemption: 0/99 nodes are available: 1 x."

    found = {each.text: each for each in reasons(message)}

    assert set(found) == set(texts)
    assert [each.count for each in found.values()] == list(range(2, 2 + len(texts)))
    assert all(found[text].cause is OF_REASON[reason] for text, reason in texts.items())


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Insufficient cpu", Cause.RESOURCES),
        ("Too many pods", Cause.RESOURCES),
        ("node(s) had untolerated taint {team: vision}", Cause.TAINT),
        ("node(s) didn't match Pod's node affinity/selector", Cause.SELECTOR),
        ("node(s) were unschedulable", Cause.CORDONED),
        ("node(s) had volume node affinity conflict", Cause.OTHER_REASON),
    ],
)
def test_reasons_of_kube_scheduler_itself(text: str, cause: Cause) -> None:
    message = f"0/3 nodes are available: 1 {text}, 2 all GPUs in use. no new claims, preemption: x"

    assert [(each.count, each.cause) for each in reasons(message)] == [
        (1, cause),
        (2, Cause.IN_USE),
    ]


@pytest.mark.parametrize(
    ("text", "resource"),
    [
        ("Insufficient nvidia.com/gpu", "nvidia.com/gpu"),
        ("Insufficient gpudetour.io/gpu-memory", "gpudetour.io/gpu-memory"),
        ("Insufficient nvidia.com/mig-1g.5gb", "nvidia.com/mig-1g.5gb"),
        ("Insufficient cpu", ""),
        ("Insufficient nvidia.com/hostdev", ""),
    ],
)
def test_a_scheduler_that_counts_gpus_has_no_extender(text: str, resource: str) -> None:
    assert counts_gpus(f"0/1 nodes are available: 1 {text}. preemption: none.") == resource


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (f'Post "{URL}/filter": dial tcp: connect: connection refused', Cause.EXTENDER_DOWN),
        (f'Post "{URL}/filter": context deadline exceeded', Cause.EXTENDER_DOWN),
        ("gpudetour's extender does not serve: another replica leads", Cause.EXTENDER_DOWN),
        (f'Post "{URL}/bind": tls: failed to verify: x509: unknown authority', Cause.CERTIFICATE),
        (f'Post "{URL}/filter": remote error: tls: bad certificate', Cause.CERTIFICATE),
        (f"failed filter with extender at URL {URL}, code 403", Cause.CERTIFICATE),
        ("ValidatingAdmissionPolicy 'gpudetour-fence' denied request: no params", Cause.FENCE),
        ("the extender that wrote this is no longer the leader", Cause.FENCE),
        ("gpudetour's extender does not serve: the API server lets Bindings of epoch 4 pass in"
         " epoch 5: apply the policies gpudetour-fence and gpudetour-assign", Cause.FENCE),
    ],
)  # fmt: skip
def test_failures_of_the_call_are_told_apart(message: str, cause: Cause) -> None:
    found = failure(message)

    assert found is not None
    assert found.cause is cause


def test_a_refusal_of_nodes_is_no_failure() -> None:
    assert failure("0/1 nodes are available: 1 all GPUs in use.") is None


@given(st.text(max_size=300))
def test_any_text_is_read(message: str) -> None:
    for text in (message, f"0/1 nodes are available: {message}"):
        assert all(told.count >= 0 for told in reasons(text))
        counts_gpus(text)
        failure(text)

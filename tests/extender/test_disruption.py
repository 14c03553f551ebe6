"""Which pods cannot be evicted together, by what PodDisruptionBudgets say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from extender.preempting.disruption import Budget, beyond
from kube.objects import ObjectMeta

PODS = [
    ObjectMeta(name=f"pod-{i}", namespace="ns", uid=f"uid-{i}", labels={"app": "x", "n": str(i)})
    for i in range(3)
]


def budget(selector: dict[str, Any] | None, allowed: int, *, namespace: str = "ns") -> Budget:
    document = {
        "metadata": {"namespace": namespace},
        "spec": {} if selector is None else {"selector": selector},
        "status": {"disruptionsAllowed": allowed},
    }
    return msgspec.convert(document, Budget)


def over(*budgets: Budget) -> list[str]:
    return [pod.name for pod in beyond(PODS, budgets)]


APP = {"matchLabels": {"app": "x"}}


def test_as_many_may_go_as_the_budget_allows() -> None:
    assert [over(budget(APP, n)) for n in (3, 2, 0)] == [
        [],
        ["pod-2"],
        ["pod-0", "pod-1", "pod-2"],
    ]


def test_each_budget_counts_for_itself() -> None:
    first = budget({"matchLabels": {"n": "0"}}, 0)

    assert over(first, budget(APP, 2)) == ["pod-0", "pod-2"]


def test_budgets_of_other_namespaces_and_without_selector_cover_nothing() -> None:
    assert over(budget(APP, 0, namespace="other"), budget(None, 0)) == []


@pytest.mark.parametrize(
    ("expression", "covered"),
    [
        ({"key": "n", "operator": "In", "values": ["0", "2"]}, ["pod-0", "pod-2"]),
        ({"key": "n", "operator": "NotIn", "values": ["0", "2"]}, ["pod-1"]),
        ({"key": "absent", "operator": "NotIn", "values": ["0"]}, ["pod-0", "pod-1", "pod-2"]),
        ({"key": "app", "operator": "Exists"}, ["pod-0", "pod-1", "pod-2"]),
        ({"key": "app", "operator": "DoesNotExist"}, []),
        ({"key": "n", "operator": "Gt", "values": ["1"]}, ["pod-0", "pod-1", "pod-2"]),
    ],
)
def test_expressions_select_as_kubernetes_does(
    expression: dict[str, Any], covered: list[str]
) -> None:
    assert over(budget({"matchExpressions": [expression]}, 0)) == covered


def test_an_empty_selector_covers_the_whole_namespace() -> None:
    assert over(budget({}, 0)) == ["pod-0", "pod-1", "pod-2"]

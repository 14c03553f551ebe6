"""How many pods PodDisruptionBudgets allow to be evicted together: values in, values out.

A dry run of an eviction does not count: of two pods with a budget of one, both dry runs pass, and
the second eviction is refused when the first has been made. So what is asked for together is
counted here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kube.objects import ObjectMeta, Struct


class Requirement(Struct, frozen=True):
    """One line of a label selector (metav1.LabelSelectorRequirement)."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class Selector(Struct, frozen=True):
    """A label selector; an empty one selects every pod of the namespace (policy/v1)."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


class BudgetSpec(Struct, frozen=True):
    selector: Selector | None = None


class BudgetStatus(Struct, frozen=True):
    disruptions_allowed: int = 0


class Budget(Struct, frozen=True):
    """The parts of a PodDisruptionBudget that we read."""

    metadata: ObjectMeta = ObjectMeta()
    spec: BudgetSpec = BudgetSpec()
    status: BudgetStatus = BudgetStatus()


def beyond(pods: Sequence[ObjectMeta], budgets: Iterable[Budget]) -> list[ObjectMeta]:
    """Return those of the pods that cannot be evicted together with all before them."""
    over: dict[str, ObjectMeta] = {}
    for budget in budgets:
        covered = [pod for pod in pods if _covers(budget, pod)]
        for pod in covered[max(0, budget.status.disruptions_allowed) :]:
            over[pod.uid] = pod
    return list(over.values())


def _covers(budget: Budget, pod: ObjectMeta) -> bool:
    selector = budget.spec.selector
    if selector is None or budget.metadata.namespace != pod.namespace:
        return False
    labels = pod.labels or {}
    equal = (selector.match_labels or {}).items() <= labels.items()
    return equal and all(_meets(one, labels) for one in selector.match_expressions or ())


def _meets(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement.key), requirement.values or ()
    match requirement.operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            # Written for a later API: better to spare a pod than to evict one that is protected.
            return True

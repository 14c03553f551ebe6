"""What choices of values add to the objects that are shipped."""

from __future__ import annotations

from typing import Any

from localcluster import shipped
from localcluster.rendering import objects_of

Object = dict[str, Any]

EVICTING = {"preemption": {"enabled": True}}
CLOSING = {"defaultRuntime": {"close": True}}


def of(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = (i for i in objects if (i["kind"], i["metadata"]["name"]) == (kind, name))
    return found


def rights_to_evict() -> list[Object]:
    """The objects that preemption needs besides those that are there without."""
    before = list(shipped.objects())
    return [
        item
        for item in objects_of(EVICTING)
        if item not in before and item["kind"] in ("ClusterRole", "ClusterRoleBinding")
    ]


def option_of(choice: dict[str, Any], workload: str) -> str:
    """The option that a choice adds to the command line of a workload."""
    with_it, without = (
        of(items, "Deployment", workload)["spec"]["template"]["spec"]["containers"][0]["args"]
        for items in (objects_of(choice), list(shipped.objects()))
    )
    (added,) = [option for option in with_it if option not in without]
    return str(added)


def closing_webhook() -> Object:
    """The webhook of pods that ask for no GPU, where NVIDIA's runtime is the default one."""
    found, before = (
        of(items, "MutatingWebhookConfiguration", "gpudetour")["webhooks"]
        for items in (objects_of(CLOSING), list(shipped.objects()))
    )
    (added,) = (webhook for webhook in found if webhook not in before)
    return dict(added)

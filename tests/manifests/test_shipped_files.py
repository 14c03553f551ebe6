"""The shipped files agree with the programs, with each other and with the contract."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import click
import pytest

from extender.leading.fence import ACCOUNT
from gpus.annotations import DEVICES_CONFIG_MAP_PREFIX, EPOCH, GPU_LABEL, assigned_prefix
from gpus.demand import is_gpu_resource
from localcluster import shipped
from localcluster.shipped import Variant
from localcluster.stack import AGENT_ACCOUNT

KINDS = ("Deployment", "DaemonSet", "Job")
WORKLOADS = [
    *shipped.objects(*KINDS),
    *(
        item
        for item in shipped.objects(*KINDS, variant=Variant.SECOND_SCHEDULER)
        if item not in list(shipped.objects(*KINDS))
    ),
]
POLICIES = "ValidatingAdmissionPolicy"
both_variants = pytest.mark.parametrize("variant", list(Variant))


def named(item: dict[str, Any]) -> str:
    name: str = item["metadata"]["name"]
    return name


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    return found


def of_ours(workload: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers that run a program of this project."""
    return [c for c in containers(workload) if c["command"][0] == "python"]


def command_of(container: dict[str, Any]) -> click.Command:
    """The click command that `python -m MODULE [SUBCOMMAND]` runs."""
    module, *subcommands = container["command"][2:]
    command: click.Command = importlib.import_module(f"{module}.__main__").main
    for name in subcommands:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_workloads_use_options_that_their_program_knows(workload: dict[str, Any]) -> None:
    for container in of_ours(workload):
        known = {opt for parameter in command_of(container).params for opt in parameter.opts}

        assert {arg.split("=")[0] for arg in container.get("args", ())} <= known


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_workloads_name_a_service_account_and_resources_of_their_own(
    workload: dict[str, Any],
) -> None:
    accounts = {named(item) for item in shipped.objects("ServiceAccount")} | {AGENT_ACCOUNT}

    assert workload["spec"]["template"]["spec"]["serviceAccountName"] in accounts
    for container in containers(workload):
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(
    "workload", [w for w in WORKLOADS if named(w) != "gpudetour-node-agent"], ids=named
)
def test_all_but_the_agent_keep_to_the_restricted_level(workload: dict[str, Any]) -> None:
    spec = workload["spec"]["template"]["spec"]

    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(workload):
        context = container["securityContext"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"]


def test_the_fence_compares_the_text_that_the_extender_writes() -> None:
    (policy,) = (i for i in shipped.objects(POLICIES) if named(i) == "gpudetour-fence")
    text = "".join(rule["expression"] for rule in policy["spec"]["validations"])
    before, after = assigned_prefix("EPOCH").split("EPOCH")

    epoch = f"params.metadata.?annotations['{EPOCH}'].orValue('none')"
    assert f"'{before}' + {epoch} + '{after}'" in text
    assert policy["spec"]["paramKind"] == {"apiVersion": "v1", "kind": "ServiceAccount"}
    selector = policy["spec"]["matchConstraints"]["objectSelector"]
    assert selector == {"matchLabels": {GPU_LABEL: "true"}}
    assert f"startsWith('{DEVICES_CONFIG_MAP_PREFIX}')" in text


@both_variants
def test_the_fence_looks_where_the_extender_that_leads_writes(
    variant: Variant,
) -> None:
    (container,) = (
        container
        for workload in shipped.objects("Deployment", variant=variant)
        for container in of_ours(workload)
        if container["name"] == "extender"
    )
    flags = [flag for flag in container["args"] if flag.startswith(("--lease=", "--namespace="))]
    options = command_of(container).make_context("extender", flags).params
    (fence,) = (
        item["spec"]["paramRef"]
        for item in shipped.objects("ValidatingAdmissionPolicyBinding", variant=variant)
        if "paramRef" in item["spec"]
    )
    (role,) = (
        item
        for item in shipped.objects("Role", variant=variant)
        if named(item) == "gpudetour-extender"
    )

    assert (fence["name"], fence["namespace"]) == (ACCOUNT, options["namespace"])
    assert role["rules"][0]["resourceNames"] == [options["lease"]]
    (writes,) = (rule for rule in role["rules"] if rule["resources"] == ["serviceaccounts"])
    assert writes["resourceNames"] == [ACCOUNT]


def test_policies_speak_of_service_accounts_that_exist() -> None:
    text = str(list(shipped.objects(POLICIES)))
    named_there = set(re.findall(r"serviceaccount:gpudetour-system:([a-z-]+)", text))

    accounts = {named(item) for item in shipped.objects("ServiceAccount")}
    assert named_there == accounts - {"gpudetour-webhook", "gpudetour-certs"} | {AGENT_ACCOUNT}


@both_variants
def test_the_scheduler_leaves_every_gpu_resource_and_no_other_to_the_extender(
    variant: Variant,
) -> None:
    configuration = shipped.scheduler_configuration("https://x", client=Path("/c"), variant=variant)
    (extender,) = configuration["extenders"]
    resources = extender["managedResources"]

    assert all(is_gpu_resource(item["name"]) for item in resources)
    assert all(item["ignoredByScheduler"] for item in resources)
    assert len({item["name"] for item in resources}) == len(resources)
    assert not extender["ignorable"]
    assert extender["nodeCacheCapable"]

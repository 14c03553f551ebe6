"""What `scheduler.mode: second` changes, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from extender.__main__ import main
from localcluster import shipped
from localcluster.shipped import Variant

Object = dict[str, Any]


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def configuration_of(variant: Variant) -> Object:
    return shipped.scheduler_configuration("https://x", client=Path("/c"), variant=variant)


def test_it_changes_what_it_must_and_no_more() -> None:
    base, second = (by_name(list(shipped.objects(variant=variant))) for variant in Variant)

    assert base.keys() - second.keys() == {("Service", "gpudetour-extender")}
    assert second.keys() - base.keys() == {
        ("ClusterRoleBinding", "gpudetour-kube-scheduler"),
        ("ClusterRoleBinding", "gpudetour-volume-scheduler"),
        ("RoleBinding", "gpudetour-scheduler-authentication-reader"),
        ("ConfigMap", "gpudetour-scheduler"),
        ("ResourceQuota", "gpudetour-critical-pods"),
        ("PodDisruptionBudget", "gpudetour-extender"),
    }
    assert {name for name in base.keys() & second.keys() if base[name] != second[name]} == {
        ("Deployment", "gpudetour-extender"),
        ("Deployment", "gpudetour-webhook"),
        ("NetworkPolicy", "gpudetour-callers"),
        ("NetworkPolicy", "gpudetour-metrics"),
        ("Role", "gpudetour-extender"),
        ("ValidatingAdmissionPolicy", "gpudetour-assign"),
    }


def test_the_schedulers_are_configured_alike_but_for_lease_profile_and_connection() -> None:
    base, ours = configuration_of(Variant.BASE), configuration_of(Variant.SECOND_SCHEDULER)
    lease, (profile,) = ours.pop("leaderElection"), ours.pop("profiles")
    expected = copy.deepcopy(base)
    del expected["leaderElection"], expected["clientConnection"]["kubeconfig"]

    assert ours == expected
    assert profile == {"schedulerName": "gpudetour-scheduler"}
    assert lease["leaderElect"]
    assert (lease["resourceNamespace"], lease["resourceName"]) == (
        "gpudetour-system",
        "gpudetour-scheduler",
    )


def test_the_extender_stops_before_another_scheduler_may_lead() -> None:
    lease = configuration_of(Variant.SECOND_SCHEDULER)["leaderElection"]
    command = shipped.command_line("gpudetour-extender", {}, variant=Variant.SECOND_SCHEDULER)
    extender = main.make_context("extender", command[command.index("extender") + 1 :]).params

    assert extender["lease_mode"] == "follow"
    assert extender["renew_deadline"] < float(lease["leaseDuration"].removesuffix("s"))


def test_pods_are_given_the_name_of_the_schedulers_profile() -> None:
    (profile,) = configuration_of(Variant.SECOND_SCHEDULER)["profiles"]
    webhook = shipped.command_line("gpudetour-webhook", {}, variant=Variant.SECOND_SCHEDULER)

    assert f"--scheduler-name={profile['schedulerName']}" in webhook


def test_the_scheduler_finds_what_is_mounted() -> None:
    objects = by_name(list(shipped.objects(variant=Variant.SECOND_SCHEDULER)))
    (text,) = objects[("ConfigMap", "gpudetour-scheduler")]["data"].values()
    (extender,) = yaml.safe_load(text)["extenders"]
    pod = objects[("Deployment", "gpudetour-extender")]["spec"]["template"]["spec"]
    (scheduler,) = (c for c in pod["containers"] if c["name"] == "kube-scheduler")
    mounts = {mount["mountPath"]: mount["name"] for mount in scheduler["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    files = [value for key, value in extender["tlsConfig"].items() if key.endswith("File")]

    assert {mounts[str(Path(file).parent)] for file in files} == {"scheduler-client"}
    secret = volumes["scheduler-client"]["secret"]["secretName"]
    assert secret == "gpudetour-scheduler-client"
    assert volumes[mounts["/etc/gpudetour/scheduler"]]["configMap"] == {
        "name": "gpudetour-scheduler"
    }
    assert (
        "--host=127.0.0.1" in next(c for c in pod["containers"] if c["name"] == "extender")["args"]
    )
    assert extender["urlPrefix"] == "https://127.0.0.1:8443"

"""The overlay with a second scheduler: what it changes of the base, and nothing else."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from extender.__main__ import main
from localcluster import shipped
from localcluster.kustomize import ManifestError, render
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.settings import default_settings
from localcluster.shipped import Variant

OVERLAY = shipped.MANIFESTS / Variant.SECOND_SCHEDULER
Object = dict[str, Any]


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def in_order(objects: list[Object]) -> list[Object]:
    """The objects, in one order, as `folded` leaves them."""
    found: list[Object] = folded(objects)
    return sorted(
        found,
        key=lambda item: (
            item["kind"],
            item["metadata"]["name"],
            item["metadata"].get("namespace", ""),
        ),
    )


def folded(value: Any) -> Any:
    """The value with each run of white space as one space: what CEL expressions make of it."""
    if isinstance(value, dict):
        return {key: folded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [folded(inner) for inner in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def configuration_of(variant: Variant) -> Object:
    return shipped.scheduler_configuration("https://x", client=Path("/c"), variant=variant)


@pytest.mark.parametrize("variant", list(Variant))
def test_kustomize_itself_renders_the_same(variant: Variant) -> None:
    kubectl = find(catalogue(architecture())["kubectl"], default_settings())
    if kubectl is None:
        pytest.skip("kubectl is not on this machine: run `python -m localcluster parts`")
    folder = shipped.MANIFESTS / variant
    printed = subprocess.run([kubectl, "kustomize", folder], capture_output=True, check=True).stdout
    by_kustomize = [item for item in yaml.safe_load_all(printed) if item is not None]

    assert in_order(by_kustomize) == in_order(render(folder))


def test_every_file_of_the_overlay_is_used() -> None:
    kustomization = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())
    patches = [entry["path"] for entry in kustomization["patches"] if "path" in entry]

    assert {path.name for path in OVERLAY.glob("*.yaml")} == {
        *(name for name in kustomization["resources"] if not name.startswith("..")),
        *patches,
        "kustomization.yaml",
    }


def test_the_overlay_changes_what_it_must_of_the_base_and_no_more() -> None:
    base, overlay = (by_name(list(shipped.objects(variant=variant))) for variant in Variant)

    assert base.keys() - overlay.keys() == {("Service", "gpudetour-extender")}
    assert overlay.keys() - base.keys() == {
        ("ClusterRoleBinding", "gpudetour-kube-scheduler"),
        ("ClusterRoleBinding", "gpudetour-volume-scheduler"),
        ("RoleBinding", "gpudetour-scheduler-authentication-reader"),
        ("ConfigMap", "gpudetour-scheduler"),
        ("ResourceQuota", "gpudetour-critical-pods"),
        ("PodDisruptionBudget", "gpudetour-extender"),
    }
    assert {name for name in base.keys() & overlay.keys() if base[name] != overlay[name]} == {
        ("Deployment", "gpudetour-extender"),
        ("Deployment", "gpudetour-webhook"),
        ("Role", "gpudetour-extender"),
        ("ValidatingAdmissionPolicy", "gpudetour-assign"),
        ("ValidatingAdmissionPolicyBinding", "gpudetour-fence"),
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
    (text,) = by_name(render(OVERLAY))[("ConfigMap", "gpudetour-scheduler")]["data"].values()
    (extender,) = yaml.safe_load(text)["extenders"]
    pod = by_name(render(OVERLAY))[("Deployment", "gpudetour-extender")]["spec"]["template"]["spec"]
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("namePrefix: x-", "namePrefix"),
        ("patches: [{patch: '[]'}]", "needs a target"),
        ("patches: [{patch: '[]', target: {kind: Job, name: x}}]", "in no resource"),
        ("patches: [{patch: 'a: b', target: {kind: Pod, name: p}}]", "no list"),
        (
            "patches: [{patch: '[{op: remove, path: /x}]', target: {kind: Pod, name: p}}]",
            "Pod p",
        ),
    ],
)
def test_what_would_be_rendered_otherwise_than_by_kustomize_is_refused(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "pod.yaml").write_text("{kind: Pod, metadata: {name: p}}")
    (tmp_path / "kustomization.yaml").write_text(f"resources: [pod.yaml]\n{text}\n")

    with pytest.raises(ManifestError, match=says):
        render(tmp_path)

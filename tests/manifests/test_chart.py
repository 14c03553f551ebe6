"""The chart: what is committed is what it renders, and what is wrong is refused."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import shipped
from localcluster.rendering import CHART, FILES, objects_of, render, text_of, version
from localcluster.shipped import MANIFESTS, ManifestError
from tests.manifests.choices import Object, of
from tests.manifests.test_shipped_files import command_of, of_ours

CONFIG = "/etc/gpudetour/config"
#: What a container learns from its environment.
_NODE = {"nodeagent": ("--node-name=n1",)}
#: Labels that every object carries.
LABELS = {f"app.kubernetes.io/{name}" for name in ("name", "part-of", "version", "managed-by")}


def container_of(objects: list[Object], kind: str, name: str) -> Object:
    (first, *_) = of(objects, kind, name)["spec"]["template"]["spec"]["containers"]
    return dict(first)


@pytest.mark.parametrize("name", FILES)
def test_what_is_committed_is_what_the_chart_renders(name: str, helm: Path) -> None:
    committed = (MANIFESTS / f"{name}.yaml").read_text()

    assert text_of(name, helm=helm) == committed, "run `make manifests`"


def test_nothing_else_is_committed_beside_the_chart() -> None:
    assert {path.stem for path in MANIFESTS.glob("*.yaml")} == set(FILES)


def test_chart_and_image_have_the_version_of_the_project() -> None:
    head = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert head["version"] == head["appVersion"] == version()
    for name in FILES:
        text = (MANIFESTS / f"{name}.yaml").read_text()
        assert f"gpudetour.local/gpudetour:{version()}\n" in text


def test_helm_finds_no_fault(helm: Path) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", CHART], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_every_object_says_what_it_belongs_to(name: str) -> None:
    documents = yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text())
    for item in (document for document in documents if document is not None):
        labels = item["metadata"]["labels"]

        assert labels.keys() >= LABELS, item["metadata"]["name"]
        assert labels["app.kubernetes.io/part-of"] == "gpudetour"


def test_names_are_free_once_more_when_all_is_deleted() -> None:
    """No object is made by a hook, or kept: what `kubectl delete -f` and Helm leave behind."""
    for name in FILES:
        text = (MANIFESTS / f"{name}.yaml").read_text()

        assert "helm.sh/hook" not in text
        assert "helm.sh/resource-policy" not in text


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"webhok": {}}, "webhok"),
        ({"webhook": {"replica": 2}}, "replica"),
        ({"webhook": {"replicas": "two"}}, "webhook/replicas|webhook.replicas"),
        ({"webhook": {"replicas": 0}}, "webhook/replicas|webhook.replicas"),
        ({"flavor": "k8s"}, "flavor"),
        ({"scheduler": {"mode": "third"}}, "scheduler.mode|scheduler/mode"),
        ({"certificates": {"mode": "none"}}, "certificates.mode|certificates/mode"),
        ({"preemption": {"enabled": "yes"}}, "preemption.enabled|preemption/enabled"),
        ({"defaultRuntime": {"closed": True}}, "closed"),
        ({"image": {"tag": 1}}, "image.tag|image/tag"),
        ({"image": {"repository": ""}}, "image.repository|image/repository"),
        ({"extender": {"clusterIP": "ten"}}, "clusterIP"),
        ({"nodeAgent": {"driverRoot": "run/nvidia"}}, "driverRoot"),
        ({"nodeAgent": {"config": {"file": "x"}}}, "file"),
        ({"networkPolicies": {"apiServerPorts": []}}, "apiServerPorts"),
        ({"nodes": {"label": "gpudetour.io/gpu"}}, "label"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], told: str, helm: Path) -> None:
    with pytest.raises(ManifestError, match=told):
        render(values, helm=helm)


def test_every_value_has_a_place_in_the_schema(helm: Path) -> None:
    """So that no default can be overridden by a misspelt one."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: Object, part: Object, path: str) -> None:
        assert part["additionalProperties"] is False, path
        assert part["properties"].keys() == values.keys(), path
        for name, value in values.items():
            inner = part["properties"][name]
            if "properties" in inner:
                compare(value, inner, f"{path}.{name}")

    # Helm adds `global` to the values of every chart.
    properties = {name: part for name, part in schema["properties"].items() if name != "global"}
    compare(defaults, {**schema, "properties": properties}, "values")
    assert render(defaults, helm=helm)


@pytest.mark.parametrize(
    "choice",
    [
        {"flavor": flavor, "scheduler": {"mode": mode}, "certificates": {"mode": certificates}}
        for flavor, mode, certificates in itertools.chain(
            itertools.product(["k0s", "microk8s", "rke2"], ["cluster"], ["builtin"]),
            itertools.product(["k3s"], ["second"], ["builtin", "cert-manager"]),
        )
    ],
    ids=lambda choice: "-".join(str(value) for value in choice.values()),
)
def test_choices_can_be_combined(choice: dict[str, Any], helm: Path) -> None:
    del helm
    objects = objects_of(choice)
    kinds = {(item["kind"], item["metadata"]["name"]) for item in objects}

    second = choice["scheduler"]["mode"] == "second"
    ours = choice["certificates"]["mode"] == "builtin"
    assert (("ConfigMap", "gpudetour-scheduler") in kinds) == second
    assert (("Service", "gpudetour-extender") in kinds) != second
    assert (("Deployment", "gpudetour-certs") in kinds) == ours
    assert (("Issuer", "gpudetour") in kinds) != ours
    assert len(kinds) >= len(list(shipped.objects())) - 10


@pytest.mark.parametrize(
    ("flavor", "address", "kubelet"),
    [
        ("k3s", "10.43.0.51", "/var/lib/kubelet"),
        ("k0s", "10.96.0.51", "/var/lib/k0s/kubelet"),
        ("microk8s", "10.152.183.51", "/var/snap/microk8s/common/var/lib/kubelet"),
    ],
)
def test_a_distribution_sets_addresses_and_folders(
    flavor: str, address: str, kubelet: str, helm: Path
) -> None:
    del helm
    objects = objects_of({"flavor": flavor})
    agent = container_of(objects, "DaemonSet", "gpudetour-node-agent")

    assert of(objects, "Service", "gpudetour-extender")["spec"]["clusterIP"] == address
    assert f"--kubelet-dir={kubelet}" in agent["args"]
    assert f"{kubelet}/pod-resources" in {mount["mountPath"] for mount in agent["volumeMounts"]}


def test_a_value_of_ones_own_goes_before_the_distributions(helm: Path) -> None:
    del helm
    own = {"extender": {"clusterIP": "10.0.0.51"}, "nodeAgent": {"kubeletDir": "/data/kubelet"}}
    objects = objects_of({"flavor": "k3s", **own, "runtimeClass": {"create": True}})
    agent = container_of(objects, "DaemonSet", "gpudetour-node-agent")

    assert of(objects, "Service", "gpudetour-extender")["spec"]["clusterIP"] == "10.0.0.51"
    assert "--kubelet-dir=/data/kubelet" in agent["args"]
    assert of(objects, "RuntimeClass", "nvidia")["handler"] == "nvidia"


@pytest.mark.parametrize(("flavor", "ours"), [("kubeadm", True), ("k3s", False), ("rke2", False)])
def test_a_runtime_class_of_the_distribution_is_left_alone(
    flavor: str, ours: bool, helm: Path
) -> None:
    del helm
    found = [item for item in objects_of({"flavor": flavor}) if item["kind"] == "RuntimeClass"]

    assert bool(found) == ours


def test_nvidias_configuration_file_reaches_the_agent(helm: Path) -> None:
    del helm
    text = "version: v1\nsharing:\n  timeSlicing:\n    resources: []\n"
    objects = objects_of({"nodeAgent": {"config": {"text": text}}})
    agent = container_of(objects, "DaemonSet", "gpudetour-node-agent")

    assert of(objects, "ConfigMap", "gpudetour-node-agent")["data"] == {"config.yaml": text}
    assert f"--config-file={CONFIG}/config.yaml" in agent["args"]
    mounted = {mount["mountPath"]: mount["name"] for mount in agent["volumeMounts"]}
    template = of(objects, "DaemonSet", "gpudetour-node-agent")["spec"]["template"]
    (volume,) = (v for v in template["spec"]["volumes"] if v["name"] == mounted[CONFIG])
    assert volume["configMap"] == {"name": "gpudetour-node-agent"}


def test_every_choice_is_an_option_that_the_program_knows(helm: Path) -> None:
    del helm
    objects = objects_of(
        {
            "scheduler": {"mode": "second"},
            "extender": {"page": True, "policy": "spread"},
            "preemption": {"enabled": True},
            "defaultRuntime": {"close": True},
            "nodeAgent": {"plugin": "never", "gpus": "0", "excludeGpus": "display"},
        }
    )
    for workload in (item for item in objects if item["kind"] in ("Deployment", "DaemonSet")):
        for container in of_ours(workload):
            command = command_of(container)
            first = container["command"][-1]
            context = command.make_context(first, [*container["args"], *_NODE.get(first, ())])
            assert context.params


def test_another_text_starts_other_agents(helm: Path) -> None:
    del helm
    one, two = (
        of(
            objects_of({"nodeAgent": {"config": {"text": f"version: v{number}"}}}),
            "DaemonSet",
            "gpudetour-node-agent",
        )["spec"]["template"]["metadata"]["annotations"]
        for number in (1, 2)
    )

    assert one != two


def test_the_namespace_is_not_made_twice(helm: Path) -> None:
    done = subprocess.run(
        [helm, "template", "gpudetour", CHART, "--namespace=gpudetour-system"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "helm install -n kube-system" in done.stderr

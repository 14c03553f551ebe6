"""What the cluster itself must have: each fault is found, named, and told how to mend."""

from __future__ import annotations

import json

import pytest

from doctor.findings import Outcome
from preflight.catalogue import CHECKS
from preflight.question import ask, is_ready
from preflight.report import as_json, as_text, verdict
from preflight.surroundings import Address, Right, Surroundings, Workload
from tests.preflight.seen import cluster, finding, node, outcomes

OUT_OF_RANGE = "provided IP is not in the valid range. The range of valid IPs is 10.43.0.0/16"
OURS = "gpudetour-system"


def ours(version: str, name: str = "gpudetour-webhook") -> Workload:
    return Workload(kind="Deployment", namespace=OURS, name=name, version=version)


BAD: list[tuple[str, Surroundings, Outcome, str]] = [
    ("server-version", cluster(version="v1.29.9+k3s1"), Outcome.BROKEN, "1.30"),
    ("server-version", cluster(version=""), Outcome.UNKNOWN, "calls itself"),
    ("admission-policies", cluster(has_policies=False), Outcome.BROKEN, "does not serve"),
    (
        "rights",
        cluster(
            rights=(
                Right(
                    verb="create",
                    group="apps",
                    resource="daemonsets",
                    namespace=OURS,
                    allowed=False,
                ),
            )
        ),
        Outcome.BROKEN,
        "create daemonsets.apps in gpudetour-system",
    ),
    ("rights", cluster(rights=()), Outcome.UNKNOWN, "does not say"),
    ("distribution", cluster(machines=()), Outcome.WARNING, "no node yet"),
    ("distribution", cluster(machines=None), Outcome.UNKNOWN, "cannot be read"),
    (
        "service-address",
        cluster(address=Address(wanted="10.96.0.51", refusal=OUT_OF_RANGE)),
        Outcome.BROKEN,
        "10.43.0.0/16",
    ),
    (
        "service-address",
        cluster(address=Address(wanted="10.96.0.51", owner="shop/cart")),
        Outcome.BROKEN,
        "shop/cart",
    ),
    (
        "service-address",
        cluster(address=Address(wanted="10.96.0.51", refusal="forbidden")),
        Outcome.UNKNOWN,
        "did not try",
    ),
    (
        "pod-security",
        cluster(namespace_labels={"pod-security.kubernetes.io/enforce": "restricted"}),
        Outcome.BROKEN,
        "restricted",
    ),
    ("runtime-class", cluster(runtime_classes={"nvidia": "kata"}), Outcome.WARNING, "kata"),
    (
        "runtime-class",
        cluster(machines=(node(kubelet="v1.34.2+k3s1"),)),
        Outcome.WARNING,
        "K3s of today brings",
    ),
    ("runtime-class", cluster(runtime_classes=None), Outcome.UNKNOWN, "cannot be read"),
    (
        "kubelet-versions",
        cluster(machines=(node(), node("old", kubelet="v1.28.3"))),
        Outcome.WARNING,
        "old (v1.28.3)",
    ),
    (
        "kubelet-versions",
        cluster(machines=(node(operating_system="windows"),)),
        Outcome.WARNING,
        "no node runs Linux",
    ),
    (
        "installed",
        cluster(workloads=(ours("0.1.0"), ours("0.2.0", "gpudetour-extender"))),
        Outcome.WARNING,
        "0.1.0, 0.2.0",
    ),
    ("installed", cluster(workloads=None), Outcome.UNKNOWN, "cannot be read"),
]


@pytest.mark.parametrize(("check", "seen", "outcome", "words"), BAD)
def test_what_is_wrong_is_found(
    check: str, seen: Surroundings, outcome: Outcome, words: str
) -> None:
    result = finding(seen, check).result

    assert (result.outcome, words in result.saw) == (outcome, True), result
    assert result.mend or outcome is Outcome.UNKNOWN


def test_a_fresh_cluster_is_ready() -> None:
    seen = cluster(address=Address(wanted="10.96.0.51"))
    findings = ask(CHECKS, seen)

    assert is_ready(findings)
    assert verdict(findings, seen) == "READY: kubectl apply -f manifests/kubeadm.yaml"
    assert {Outcome.OK, Outcome.NOT_APPLICABLE} == set(outcomes(seen).values())


@pytest.mark.parametrize(
    ("check", "seen", "words"),
    [
        (
            "service-address",
            cluster(address=Address(wanted="10.96.0.51", owner=f"{OURS}/gpudetour-extender")),
            "already",
        ),
        ("pod-security", cluster(namespace_labels={}), "by default"),
        ("runtime-class", cluster(runtime_classes={"nvidia": "nvidia"}), "has handler nvidia"),
        ("installed", cluster(workloads=(ours("0.1.0"),)), "0.1.0 is installed"),
    ],
)
def test_what_an_install_left_is_fine(check: str, seen: Surroundings, words: str) -> None:
    result = finding(seen, check).result

    assert result.outcome is Outcome.OK
    assert words in result.saw


def test_what_stands_against_an_install_is_told_first() -> None:
    seen = cluster(version="v1.28.0", has_policies=False)
    findings = ask(CHECKS, seen)
    text = as_text(findings, seen)

    assert not is_ready(findings)
    assert text.splitlines()[0].startswith("NOT READY: 2 causes. First: the API server is v1.28.0")
    assert text.index("server-version") < text.index("admission-policies") < text.index("Fine:")


def test_json_says_the_same() -> None:
    seen = cluster(version="v1.28.0", unreadable={"/api/v1/nodes": "forbidden"})
    report = json.loads(as_json(ask(CHECKS, seen), seen))

    assert report["ready"] is False
    assert report["distribution"] == "kubeadm"
    assert report["unreadable"] == {"/api/v1/nodes": "forbidden"}
    assert [each["id"] for each in report["findings"]] == [check.id for check in CHECKS]
    assert report["findings"][0]["mend"]


def test_nothing_that_a_cluster_says_reaches_the_terminal_as_a_command() -> None:
    seen = cluster(machines=(node("evil\x1b[2J", kubelet="v1.20.0"),))

    assert "\x1b" not in as_text(ask(CHECKS, seen), seen)


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)

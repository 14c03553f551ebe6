"""Our extender in an admin's KubeSchedulerConfiguration: what is kept, replaced and refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from scheduling.configuration import (
    Credentials,
    SetupError,
    merge,
    merge_second,
    url_of,
    with_data,
    with_files,
)
from scheduling.files import shipped

Object = dict[str, Any]

URL = "https://10.96.0.51:443"
OURS = with_files(shipped(), url=URL, folder="/etc/gpudetour", kubeconfig="/etc/scheduler.conf")
ADMINS: Object = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "clientConnection": {"kubeconfig": "/srv/scheduler.kubeconfig", "qps": 7},
    "leaderElection": {"leaderElect": False},
    "profiles": [{"schedulerName": "default-scheduler"}, {"schedulerName": "dense"}],
    "extenders": [{"urlPrefix": "https://10.1.2.3/storage", "filterVerb": "filter"}],
}


def admins(**changes: Any) -> Object:
    return {**copy.deepcopy(ADMINS), **changes}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("10.96.0.51", "https://10.96.0.51:443"),
        ("10.96.0.51:8443", "https://10.96.0.51:8443"),
        ("fd00::51", "https://[fd00::51]:443"),
        ("[fd00::51]:8443", "https://[fd00::51]:8443"),
    ],
)
def test_an_address_becomes_a_url(address: str, url: str) -> None:
    assert url_of(address) == url


@pytest.mark.parametrize(
    "address",
    [
        "gpudetour-extender.gpudetour-system.svc",
        "gpudetour-extender:443",
        "localhost",
        "",
        "10.96.0.51:https",
        "10.96.0.51:0",
        "10.96.0.51:70000",
        "None",
    ],
)
def test_a_name_that_the_scheduler_cannot_resolve_is_refused(address: str) -> None:
    with pytest.raises(SetupError):
        url_of(address)


def test_certificates_are_inside_or_beside_and_never_both() -> None:
    credentials = Credentials(ca=b"authority", certificate=b"leaf", key=b"key")
    inside = with_data(shipped(), url=URL, credentials=credentials, kubeconfig="/k")

    beside = OURS["extenders"][0]["tlsConfig"]
    assert beside == {
        "serverName": "gpudetour-extender.gpudetour-system.svc",
        "caFile": "/etc/gpudetour/ca.crt",
        "certFile": "/etc/gpudetour/tls.crt",
        "keyFile": "/etc/gpudetour/tls.key",
    }
    assert inside["extenders"][0]["tlsConfig"] == {
        "serverName": "gpudetour-extender.gpudetour-system.svc",
        "caData": "YXV0aG9yaXR5",
        "certData": "bGVhZg==",
        "keyData": "a2V5",
    }


def test_what_an_admin_set_is_kept() -> None:
    merged = merge(admins(percentageOfNodesToScore=100), OURS).configuration

    for key in ("profiles", "leaderElection", "percentageOfNodesToScore"):
        assert merged[key] == admins(percentageOfNodesToScore=100)[key]
    assert merged["clientConnection"] == {
        "kubeconfig": "/srv/scheduler.kubeconfig",
        "qps": 7,
        "burst": 400,
    }
    assert merged["extenders"] == [*ADMINS["extenders"], *OURS["extenders"]]


def test_what_an_admin_left_open_is_as_shipped() -> None:
    merged = merge(admins(), OURS).configuration

    assert merged["podMaxBackoffSeconds"] == 1
    assert merged["percentageOfNodesToScore"] == 100


def test_merging_again_changes_nothing() -> None:
    once = merge(admins(), OURS).configuration

    assert merge(once, OURS).configuration == once


def test_a_former_entry_of_ours_is_replaced_where_it_stands() -> None:
    former = copy.deepcopy(OURS["extenders"][0]) | {"urlPrefix": "https://10.9.9.9:443"}
    last = {"urlPrefix": "https://10.1.2.4/network", "filterVerb": "filter"}

    merged = merge(admins(extenders=[former, last]), OURS).configuration

    assert merged["extenders"] == [OURS["extenders"][0], last]


def test_merging_leaves_what_was_given_alone() -> None:
    given, ours = admins(), copy.deepcopy(OURS)

    merge(given, ours)

    assert given == ADMINS
    assert ours == OURS


@pytest.mark.parametrize(
    ("existing", "words"),
    [
        (None, "holds no KubeSchedulerConfiguration"),
        ([], "holds no KubeSchedulerConfiguration"),
        ({"kind": "Pod"}, "holds no KubeSchedulerConfiguration"),
        (admins(apiVersion="kubescheduler.config.k8s.io/v1beta3"), "write it as"),
        (admins(extenders=[{"urlPrefix": "http://hami", "bindVerb": "bind"}]), "binds pods too"),
        (
            admins(
                extenders=[
                    {"urlPrefix": "http://x", "managedResources": [{"name": "nvidia.com/gpu"}]}
                ]
            ),
            "manages nvidia.com/gpu too",
        ),
    ],
)
def test_what_the_scheduler_would_refuse_is_refused_first(existing: object, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        merge(existing, OURS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"percentageOfNodesToScore": 30}, "percentageOfNodesToScore is 30"),
        ({"podMaxBackoffSeconds": 10}, "podMaxBackoffSeconds is 10"),
        (
            {"profiles": [{"schedulerName": "dense", "percentageOfNodesToScore": 5}]},
            "profile dense",
        ),
    ],
)
def test_what_works_against_the_extender_is_remarked(changes: Object, words: str) -> None:
    remarks = merge(admins(**changes), OURS).remarks

    assert len(remarks) == 1
    assert words in remarks[0]


def test_nothing_is_remarked_where_all_is_well() -> None:
    assert merge(admins(percentageOfNodesToScore=100), OURS).remarks == ()


def test_the_second_scheduler_keeps_its_lease_and_its_name() -> None:
    second = {**OURS, "leaderElection": {"resourceName": "gpudetour-scheduler"}}
    given = admins(profiles=[{"schedulerName": "gpudetour-scheduler", "plugins": {}}])

    merged = merge_second(given, second).configuration

    assert merged["leaderElection"] == {"resourceName": "gpudetour-scheduler"}
    assert merged["profiles"] == given["profiles"]
    assert "kubeconfig" not in merged["clientConnection"]
    with pytest.raises(SetupError, match="gpudetour-scheduler"):
        merge_second(admins(), second)

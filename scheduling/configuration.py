"""The extender's entry in a KubeSchedulerConfiguration, alone or within an admin's own. Pure.

The rules are kube-scheduler's (pkg/scheduler/apis/config/validation): one version of the file is
read, and one extender at most may bind.
"""

from __future__ import annotations

import base64
import copy
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doctor.shapes import mapping, mappings, text

Object = dict[str, Any]

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"
#: What the shipped file sets beside the extender, and why an admin may wish to know of it.
_ALL_NODES = 100
_PROFILE = "gpudetour-scheduler"


class SetupError(Exception):
    """The configuration cannot be made; the text says why and what to do next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Three PEM files: whom kube-scheduler believes, and its proof of who it is."""

    ca: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """An admin's configuration with the extender in it, and what the admin should know of it."""

    configuration: Object
    remarks: tuple[str, ...] = ()


def url_of(address: str) -> str:
    """Return the extender's URL at `ADDRESS` or `ADDRESS:PORT`; raises `SetupError` for names.

    kube-scheduler runs on the host network, where cluster DNS is not asked.
    """
    host, port = _split(address)
    try:
        found = ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        raise SetupError(
            f"{address!r} is no IP address; kube-scheduler cannot resolve names of Services, so"
            " name the address of Service gpudetour-extender, such as 10.96.0.51 or [fd00::51]:443"
        ) from None
    if not 0 < number < 65536:
        raise SetupError(f"{address!r} names port {number}, and ports are 1 to 65535")
    written = f"[{found}]" if found.version == 6 else str(found)
    return f"https://{written}:{number}"


def with_files(base: Mapping[str, Any], *, url: str, folder: str, kubeconfig: str) -> Object:
    """Return the shipped configuration with the certificates in files below `folder`."""
    paths = {
        "caFile": f"{folder}/ca.crt",
        "certFile": f"{folder}/tls.crt",
        "keyFile": f"{folder}/tls.key",
    }
    return _placed(base, url=url, kubeconfig=kubeconfig, proof=paths)


def with_data(
    base: Mapping[str, Any], *, url: str, credentials: Credentials, kubeconfig: str
) -> Object:
    """Return the shipped configuration with the certificates inside it."""
    inside = {
        "caData": base64.b64encode(credentials.ca).decode(),
        "certData": base64.b64encode(credentials.certificate).decode(),
        "keyData": base64.b64encode(credentials.key).decode(),
    }
    return _placed(base, url=url, kubeconfig=kubeconfig, proof=inside)


def merge(existing: object, ours: Mapping[str, Any]) -> Merged:
    """Put our extender into an admin's configuration, which keeps all that it says.

    What it does not say comes from `ours`. A former entry of ours is replaced, so merging again
    changes nothing. Raises `SetupError` where kube-scheduler would refuse the result.
    """
    if not isinstance(existing, dict) or existing.get("kind") != KIND:
        raise SetupError(f"the file to merge into holds no {KIND}; see what --config names")
    if existing.get("apiVersion") != API_VERSION:
        raise SetupError(
            f"the file to merge into is of {text(existing.get('apiVersion')) or 'no version'};"
            f" write it as {API_VERSION}, which every supported Kubernetes reads"
        )
    (entry,) = ours["extenders"]
    others = [each for each in mappings(existing.get("extenders")) if not _is_same(each, entry)]
    _refuse_rivals(others, entry)
    merged = copy.deepcopy(existing)
    for key, value in ours.items():
        merged.setdefault(key, copy.deepcopy(value))
    merged["clientConnection"] = {
        **mapping(ours.get("clientConnection")),
        **mapping(existing.get("clientConnection")),
    }
    merged["extenders"] = _replaced(mappings(existing.get("extenders")), entry)
    return Merged(configuration=merged, remarks=_remarks(existing))


def merge_second(existing: object, ours: Mapping[str, Any]) -> Merged:
    """The same for the scheduler beside the extender, whose Lease and name are not to choose."""
    found = merge(existing, ours)
    configuration = {**found.configuration, "leaderElection": ours["leaderElection"]}
    profiles = mappings(configuration.get("profiles"))
    if not any(profile.get("schedulerName") == _PROFILE for profile in profiles):
        raise SetupError(
            f"no profile of the file to merge into is for schedulerName {_PROFILE}, which GPU pods"
            " get; rename one"
        )
    configuration["clientConnection"] = {
        key: value
        for key, value in configuration["clientConnection"].items()
        if key != "kubeconfig"
    }
    return Merged(configuration=configuration, remarks=found.remarks)


def _split(address: str) -> tuple[str, str]:
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, rest.removeprefix(":") or "443"
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, port
    return address, "443"


def _placed(
    base: Mapping[str, Any], *, url: str, kubeconfig: str, proof: Mapping[str, str]
) -> Object:
    configuration = copy.deepcopy(dict(base))
    configuration["clientConnection"]["kubeconfig"] = kubeconfig
    (extender,) = configuration["extenders"]
    extender["urlPrefix"] = url
    extender["tlsConfig"] = {"serverName": extender["tlsConfig"]["serverName"], **proof}
    return configuration


def _is_same(extender: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    name = mapping(extender.get("tlsConfig")).get("serverName")
    ours = text(entry["tlsConfig"]["serverName"])
    return name == ours or extender.get("urlPrefix") == text(entry["urlPrefix"])


def _replaced(
    extenders: list[Mapping[str, Any]], entry: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    """Extenders are asked in their order, so ours stays where it was."""
    placed: list[Mapping[str, Any]] = []
    is_in = False
    for each in extenders:
        if not _is_same(each, entry):
            placed.append(each)
        elif not is_in:
            placed.append(entry)
            is_in = True
    return placed if is_in else [*placed, entry]


def _refuse_rivals(others: list[Mapping[str, Any]], entry: Mapping[str, Any]) -> None:
    ours = {each["name"] for each in entry["managedResources"]}
    for other in others:
        where = text(other.get("urlPrefix"))
        if other.get("bindVerb"):
            raise SetupError(
                f"the extender at {where} binds pods too, and kube-scheduler takes one that does;"
                " run ours beside a scheduler of its own instead (--flavor second)"
            )
        managed = {text(each.get("name")) for each in mappings(other.get("managedResources"))}
        if shared := sorted(managed & ours):
            raise SetupError(
                f"the extender at {where} manages {shared[0]} too; one of the two must go"
            )


def _remarks(existing: Mapping[str, Any]) -> tuple[str, ...]:
    told = []
    sample = existing.get("percentageOfNodesToScore")
    if sample not in (None, _ALL_NODES):
        told.append(
            f"percentageOfNodesToScore is {sample}: the extender sees a sample of the nodes, which"
            " may hold no free GPU while others do; 100 shows it all"
        )
    backoff = existing.get("podMaxBackoffSeconds")
    if isinstance(backoff, int) and backoff > 1:
        told.append(
            f"podMaxBackoffSeconds is {backoff}: after an error a GPU pod waits up to that long"
            " when all is well again"
        )
    return (
        *told,
        *(
            f"profile {text(profile.get('schedulerName')) or 'default-scheduler'} sets a"
            " percentageOfNodesToScore of its own; the extender sees no more than that"
            for profile in mappings(existing.get("profiles"))
            if profile.get("percentageOfNodesToScore", _ALL_NODES) != _ALL_NODES
        ),
    )

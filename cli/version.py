"""`gpudetour version`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed

import click
import msgspec

from cli.options import Target, targeted
from cli.reading import SYSTEM
from cli.refusals import told
from kube.client import Client
from kube.errors import KubeError
from kube.objects import ObjectMeta

#: Seconds; who wants the version of this program shall not wait for a server that is away.
_PATIENCE = 3.0
_PART_OF = "app.kubernetes.io/part-of=gpudetour"
_VERSION = "app.kubernetes.io/version"
_KINDS = ("deployments", "daemonsets")


class _Container(msgspec.Struct, frozen=True):
    image: str = ""


class _PodSpec(msgspec.Struct, frozen=True):
    containers: list[_Container] = []


class _Template(msgspec.Struct, frozen=True):
    spec: _PodSpec = _PodSpec()


class _Spec(msgspec.Struct, frozen=True):
    template: _Template = _Template()


class _Workload(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _Spec = _Spec()


class _Server(msgspec.Struct, rename="camel", frozen=True):
    git_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Of this program, of the API server, and of each part of gpudetour that is installed."""

    client: str
    kubernetes: str | None = None
    parts: dict[str, str] | None = None
    trouble: str = ""


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Ask no server.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Format of the output.")
@targeted(namespaced=False)
def version(target: Target, client_only: bool, output: str | None) -> None:
    """Print the versions of this program, of Kubernetes and of what is installed there."""
    versions = Versions(client=installed("gpudetour"))
    if not client_only:
        versions = _ask(target, versions)
    if output == "json":
        click.echo(json.dumps(asdict(versions), indent=2))
        return
    for line in lines(versions):
        click.echo(line)
    if versions.trouble:
        click.echo(versions.trouble, err=True)


def lines(versions: Versions) -> list[str]:
    """Return what a person reads."""
    found = [f"gpudetour {versions.client}"]
    if versions.kubernetes is not None:
        found.append(f"Kubernetes {versions.kubernetes}")
    if versions.parts is not None:
        found += [f"{name} {versions.parts[name]}" for name in sorted(versions.parts)]
        if not versions.parts:
            found.append(f"no part of gpudetour is installed in {SYSTEM}")
        elif set(versions.parts.values()) - {versions.client}:
            found.append("These differ: use the release of gpudetour that is installed.")
    return found


def _ask(target: Target, versions: Versions) -> Versions:
    try:
        client = target.client().with_timeout(min(_PATIENCE, target.request_timeout))
        with ThreadPoolExecutor(3) as pool:
            server = pool.submit(client.get, "/version", type=_Server)
            found = [pool.submit(_workloads, client, kind) for kind in _KINDS]
            return Versions(
                client=versions.client,
                kubernetes=server.result().git_version,
                parts=parts(workload for call in found for workload in call.result()),
            )
    except KubeError as error:
        return Versions(client=versions.client, trouble=told(error))


def _workloads(client: Client, kind: str) -> Sequence[_Workload]:
    path = f"/apis/apps/v1/namespaces/{SYSTEM}/{kind}"
    return client.list_all(path, type=_Workload, params={"labelSelector": _PART_OF}).items


def parts(workloads: Iterable[_Workload]) -> dict[str, str]:
    """Return the version of each workload by its label, else by the tag of its image."""
    return {each.metadata.name: _version_of(each) for each in workloads}


def _version_of(workload: _Workload) -> str:
    label = (workload.metadata.labels or {}).get(_VERSION)
    if label:
        return label
    image = next((each.image for each in workload.spec.template.spec.containers), "")
    tag = re.search(r":([\w.-]+)$", image.partition("@")[0])
    return tag[1] if tag else "unknown"

"""The manifests that gpudetour ships, read for use on a local cluster.

Nothing is written anew here: objects are what the files say, and the processes that a cluster would
run as pods are started on this machine with the command lines that the files give them. Callers
replace addresses and paths, nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scheduling.files import shipped as cluster_scheduler

Object = dict[str, Any]

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"

#: Run on this machine as processes, since no image of them is here.
_WORKLOADS = ("Deployment", "DaemonSet", "Job")


class ManifestError(Exception):
    """A manifest is not what is expected of it."""


class Variant(StrEnum):
    """What a local cluster can be given; the values are names of rendered files."""

    #: The cluster's own kube-scheduler calls the extender.
    BASE = "kubeadm"
    #: A kube-scheduler of our own does, in the extender's pod.
    SECOND_SCHEDULER = "second-scheduler"


def objects(*kinds: str, variant: Variant = Variant.BASE) -> Iterator[Object]:
    """All objects in the order of the file, of the named kinds if any are named."""
    found: list[Object] = json.loads(_documents(variant))
    for item in found:
        if not kinds or item["kind"] in kinds:
            yield item


@cache
def _documents(variant: Variant) -> str:
    """The file as JSON, which is read anew a hundred times faster: callers change what they get."""
    documents = yaml.safe_load_all((MANIFESTS / f"{variant}.yaml").read_text())
    return json.dumps([item for item in documents if item is not None])


def cluster_objects(variant: Variant = Variant.BASE) -> list[Object]:
    """Everything that is no workload, and that is of use without the webhook."""
    return [
        item
        for item in objects(variant=variant)
        if item["kind"] not in _WORKLOADS and not _needs_the_webhook(item)
    ]


def admission(url: str) -> list[Object]:
    """The MutatingWebhookConfiguration, calling `url` instead of the Service, and the policy that
    refuses pods that did not pass it.
    """
    found = [item for item in objects() if _needs_the_webhook(item)]
    for item in found:
        for webhook in item.get("webhooks", ()):
            webhook["clientConfig"] = {"url": url + webhook["clientConfig"]["service"]["path"]}
    return found


def _needs_the_webhook(item: Object) -> bool:
    kind: str = item["kind"]
    name: str = item["metadata"]["name"]
    return kind == "MutatingWebhookConfiguration" or name == "gpudetour-admitted"


def command_line(
    workload: str, changes: Mapping[str, str | None], *, variant: Variant = Variant.BASE
) -> list[str]:
    """The command of a workload's container, on this Python, with options changed or added.

    An option without a value, a flag, has None.
    """
    for container in _containers(workload, variant):
        program, *module = container["command"]
        if program == "python":
            return [sys.executable, *module, *_options(container, changes)]
    raise ManifestError(f"no manifest has a workload named {workload} that runs Python")


def second_scheduler(program: Path, changes: Mapping[str, str]) -> list[str]:
    """The command of the kube-scheduler beside the extender, with options changed or added."""
    for container in _containers("gpudetour-extender", Variant.SECOND_SCHEDULER):
        if container["command"] == ["kube-scheduler"]:
            return [str(program), *_options(container, changes)]
    raise ManifestError("no manifest has a kube-scheduler beside the extender")


def _containers(workload: str, variant: Variant) -> Iterator[Object]:
    for item in objects(*_WORKLOADS, variant=variant):
        if item["metadata"]["name"] == workload:
            yield from item["spec"]["template"]["spec"]["containers"]


def _options(container: Object, changes: Mapping[str, str | None]) -> list[str]:
    options: dict[str, str | None] = {}
    for argument in container.get("args", ()):
        name, given, value = argument.partition("=")
        options[name] = value if given else None
    options |= changes
    return [name if value is None else f"{name}={value}" for name, value in options.items()]


def scheduler_configuration(url: str, *, client: Path, variant: Variant = Variant.BASE) -> Object:
    """The KubeSchedulerConfiguration with the extender at `url`.

    `client` is a folder with tls.crt, tls.key and ca.crt, the scheduler's proof of who it is. The
    cluster's own scheduler is alone here and elects no leader.
    """
    if variant is Variant.BASE:
        configuration = cluster_scheduler()
        configuration["leaderElection"] = {"leaderElect": False}
    else:
        configuration = _second_scheduler_configuration()
    (extender,) = configuration["extenders"]
    extender["urlPrefix"] = url
    extender["tlsConfig"] |= {
        "caFile": str(client / "ca.crt"),
        "certFile": str(client / "tls.crt"),
        "keyFile": str(client / "tls.key"),
    }
    return configuration


def _second_scheduler_configuration() -> Object:
    for item in objects("ConfigMap", variant=Variant.SECOND_SCHEDULER):
        if item["metadata"]["name"] == "gpudetour-scheduler":
            (text,) = item["data"].values()
            configuration: Object = yaml.safe_load(text)
            return configuration
    raise ManifestError("no manifest has the configuration of a second scheduler")

"""The manifests that gpudetour ships, read for use on a local cluster.

Nothing is written anew here: objects are what the files say, and the processes that a cluster would
run as pods are started on this machine with the command lines that the files give them. Callers
replace addresses and paths, nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

MANIFESTS = Path(__file__).resolve().parent.parent / "manifests"
_BASE = MANIFESTS / "base"

#: Run on this machine as processes, since no image of them is here.
_WORKLOADS = ("Deployment", "DaemonSet", "Job")


class ManifestError(Exception):
    """A shipped file lacks what is looked for."""


def objects(*kinds: str) -> Iterator[Object]:
    """All objects of the base in kustomization order, of the named kinds if any are named."""
    kustomization = yaml.safe_load((_BASE / "kustomization.yaml").read_text())
    for name in kustomization["resources"]:
        for document in yaml.safe_load_all((_BASE / name).read_text()):
            if document is not None and (not kinds or document["kind"] in kinds):
                yield document


def cluster_objects() -> list[Object]:
    """Everything of the base that is no workload and no webhook configuration."""
    left_out = (*_WORKLOADS, "MutatingWebhookConfiguration")
    return [item for item in objects() if item["kind"] not in left_out]


def webhook_configuration(url: str) -> Object:
    """The MutatingWebhookConfiguration, calling `url` instead of the Service."""
    (configuration,) = objects("MutatingWebhookConfiguration")
    for webhook in configuration["webhooks"]:
        webhook["clientConfig"] = {"url": url + webhook["clientConfig"]["service"]["path"]}
    return configuration


def command_line(workload: str, changes: Mapping[str, str]) -> list[str]:
    """The command of a workload's container, on this Python, with options changed or added."""
    for item in objects(*_WORKLOADS):
        if item["metadata"]["name"] == workload:
            (container,) = item["spec"]["template"]["spec"]["containers"]
            given = dict(argument.split("=", 1) for argument in container.get("args", ()))
            options = [f"{name}={value}" for name, value in {**given, **changes}.items()]
            return [sys.executable, *container["command"][1:], *options]
    raise ManifestError(f"no manifest has a workload named {workload}")


def scheduler_configuration(url: str, *, client: Path) -> Object:
    """The KubeSchedulerConfiguration with the extender at `url`.

    `client` is a folder with tls.crt, tls.key and ca.crt, the scheduler's proof of who it is.
    """
    path = MANIFESTS / "scheduler" / "kube-scheduler-configuration.yaml"
    configuration: Object = yaml.safe_load(path.read_text())
    configuration["leaderElection"] = {"leaderElect": False}
    (extender,) = configuration["extenders"]
    extender["urlPrefix"] = url
    extender["tlsConfig"] |= {
        "caFile": str(client / "ca.crt"),
        "certFile": str(client / "tls.crt"),
        "keyFile": str(client / "tls.key"),
    }
    return configuration

"""Asks the API server for all that preflight judges. Nothing is changed; writes are dry runs.

What is refused is noted and left out. Only an API server that does not answer at all is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from doctor.shapes import mapping, mappings, text
from kube.client import Client
from kube.errors import ApiError, Invalid, KubeError, NotFound
from preflight.decode import (
    extended_class,
    is_gpu_slice,
    is_static,
    machine,
    name_of,
    pod_webhooks,
    workload,
)
from preflight.flavor import flavor_of
from preflight.surroundings import Address, PodWebhook, Right, Surroundings, Workload

_SYSTEM = "gpudetour-system"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_DRA = "/apis/resource.k8s.io/v1"
#: What the manifests hold, by API group; roles can be made only by those who hold their rights.
_CREATED = (
    ("", "namespaces", ""),
    ("", "serviceaccounts", _SYSTEM),
    ("", "services", _SYSTEM),
    ("", "configmaps", _SYSTEM),
    ("", "secrets", _SYSTEM),
    ("apps", "deployments", _SYSTEM),
    ("apps", "daemonsets", _SYSTEM),
    ("node.k8s.io", "runtimeclasses", ""),
    ("rbac.authorization.k8s.io", "clusterroles", ""),
    ("rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("rbac.authorization.k8s.io", "roles", "default"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", ""),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", ""),
)

Step = Callable[[str], None]


def read_surroundings(client: Client, *, step: Step) -> Surroundings:
    """Return what the cluster says; raises `KubeError` where the API server does not answer."""
    step("the API server")
    version = text(mapping(client.get("/version")).get("gitVersion"))
    reader = _Reader(client)
    seen = Surroundings(
        version=version,
        groups=reader.groups(),
        has_policies=reader.has_policies(),
        rights=reader.rights(),
    )
    step("nodes and classes")
    nodes = reader.list("/api/v1/nodes")
    machines = None if nodes is None else tuple(machine(node) for node in nodes)
    seen = replace(
        seen,
        machines=machines,
        runtime_classes=reader.runtime_classes(),
        namespace_labels=reader.namespace_labels(),
        extended_classes=reader.extended_classes(),
        slices=reader.slices(),
        address=None if not machines else reader.address(flavor_of(machines).address),
    )
    step("workloads and webhooks")
    return replace(
        seen,
        workloads=reader.workloads(),
        webhooks=reader.webhooks(),
        unreadable=reader.unreadable,
    )


@dataclass(slots=True)
class _Reader:
    client: Client
    unreadable: dict[str, str] = field(default_factory=dict)

    def groups(self) -> frozenset[str]:
        found = self._get("/apis") or {}
        return frozenset(text(group.get("name")) for group in mappings(found.get("groups")))

    def has_policies(self) -> bool:
        found = self._get(_ADMISSION)
        if found is None:
            return _ADMISSION in self.unreadable
        kinds = {text(resource.get("kind")) for resource in mappings(found.get("resources"))}
        return "ValidatingAdmissionPolicy" in kinds

    def rights(self) -> tuple[Right, ...]:
        """Ask for each right; none where the API server does not answer such questions."""
        told = []
        for group, resource, namespace in _CREATED:
            attributes = {"verb": "create", "group": group, "resource": resource}
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes | {"namespace": namespace}},
            }
            try:
                answer = self.client.create(
                    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review
                )
            except ApiError as error:
                self.unreadable["SelfSubjectAccessReview"] = str(error)
                return ()
            told.append(
                Right(
                    verb="create",
                    group=group,
                    resource=resource,
                    namespace=namespace,
                    allowed=mapping(mapping(answer).get("status")).get("allowed") is True,
                )
            )
        return tuple(told)

    def address(self, wanted: str) -> Address | None:
        """Ask for a Service at the address, as a dry run: the API server knows its own ranges."""
        if not wanted:
            return None
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"generateName": "gpudetour-preflight-"},
            "spec": {"clusterIP": wanted, "ports": [{"port": 443}]},
        }
        path = "/api/v1/namespaces/default/services"
        # A dry run allocates nothing, and so does not see that an address is in use.
        if owner := self._owner(wanted):
            return Address(wanted=wanted, owner=owner)
        try:
            self.client.create(path, service, params={"dryRun": "All"})
        except Invalid as error:
            return Address(wanted=wanted, refusal=error.message)
        except ApiError as error:
            self.unreadable[f"dry run of {path}"] = str(error)
            return Address(wanted=wanted, refusal=str(error))
        return Address(wanted=wanted)

    def runtime_classes(self) -> dict[str, str] | None:
        found = self.list("/apis/node.k8s.io/v1/runtimeclasses")
        if found is None:
            return None
        return {name_of(item): text(item.get("handler")) for item in found}

    def namespace_labels(self) -> Mapping[str, str] | None:
        found = self._get(f"/api/v1/namespaces/{_SYSTEM}")
        if found is None:
            return None
        labels = mapping(mapping(found.get("metadata")).get("labels"))
        return {key: text(value) for key, value in labels.items()}

    def extended_classes(self) -> tuple[str, ...]:
        found = self.list(f"{_DRA}/deviceclasses") or ()
        return tuple(name for item in found if (name := extended_class(item)))

    def slices(self) -> int:
        return sum(is_gpu_slice(item) for item in self.list(f"{_DRA}/resourceslices") or ())

    def workloads(self) -> tuple[Workload, ...] | None:
        deployments = self.list("/apis/apps/v1/deployments")
        daemonsets = self.list("/apis/apps/v1/daemonsets")
        if deployments is None and daemonsets is None:
            return None
        # Elsewhere there may be ten thousands, and static pods of plugins are put here.
        pods = self.list("/api/v1/namespaces/kube-system/pods") or ()
        return (
            *(workload("Deployment", item) for item in deployments or ()),
            *(workload("DaemonSet", item) for item in daemonsets or ()),
            *(workload("Pod", item) for item in pods if is_static(item)),
        )

    def webhooks(self) -> tuple[PodWebhook, ...] | None:
        found = self.list(f"{_ADMISSION}/mutatingwebhookconfigurations")
        if found is None:
            return None
        return tuple(webhook for item in found for webhook in pod_webhooks(item))

    def list(self, path: str) -> list[Mapping[str, Any]] | None:
        """Return a collection; None where it is forbidden or not served."""
        try:
            return self.client.list_all(path, type=dict[str, Any]).items  # type: ignore[return-value]
        except NotFound:
            return None
        except KubeError as error:
            self.unreadable[path] = str(error)
            return None

    def _owner(self, address: str) -> str:
        for service in self.list("/api/v1/services") or ():
            if mapping(service.get("spec")).get("clusterIP") == address:
                return (
                    f"{text(mapping(service.get('metadata')).get('namespace'))}/{name_of(service)}"
                )
        return ""

    def _get(self, path: str) -> Mapping[str, Any] | None:
        try:
            return mapping(self.client.get(path))
        except NotFound:
            return None
        except KubeError as error:
            self.unreadable[path] = str(error)
            return None

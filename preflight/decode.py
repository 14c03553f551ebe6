"""From objects as the API server sends them to what checks judge. Pure; any shape is borne."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doctor.gather.plugin import is_plugin
from doctor.shapes import mapping, mappings, text, texts
from preflight.surroundings import RESOURCE, Machine, PodWebhook, Workload

Object = Mapping[str, Any]

_VERSION_LABEL = "app.kubernetes.io/version"
_DRA_DRIVER = "gpu.nvidia.com"


def name_of(item: Object) -> str:
    """Return an object's name."""
    return text(mapping(item.get("metadata")).get("name"))


def machine(node: Object) -> Machine:
    """Return what a Node says of itself."""
    info = mapping(mapping(node.get("status")).get("nodeInfo"))
    spec = mapping(node.get("spec"))
    labels = mapping(mapping(node.get("metadata")).get("labels"))
    return Machine(
        name=name_of(node),
        kubelet=text(info.get("kubeletVersion")),
        os_image=text(info.get("osImage")),
        operating_system=text(info.get("operatingSystem")) or "linux",
        runtime=text(info.get("containerRuntimeVersion")),
        provider=text(spec.get("providerID")),
        labels={key: value for key, value in labels.items() if isinstance(value, str)},
        taints=tuple(text(taint.get("key")) for taint in mappings(spec.get("taints"))),
    )


def workload(kind: str, item: Object) -> Workload:
    """Return what a Deployment, a DaemonSet or a Pod runs."""
    metadata, spec = mapping(item.get("metadata")), mapping(item.get("spec"))
    pod = spec if kind == "Pod" else mapping(mapping(spec.get("template")).get("spec"))
    labels = mapping(metadata.get("labels"))
    owners = str(metadata.get("ownerReferences")).lower()
    images = [text(container.get("image")) for container in mappings(pod.get("containers"))]
    return Workload(
        kind=kind,
        namespace=text(metadata.get("namespace")),
        name=text(metadata.get("name")),
        images=tuple(image for image in images if image),
        version=text(labels.get(_VERSION_LABEL)) or _tag(images),
        is_nvidia_plugin=is_plugin({"spec": {"template": {"spec": pod}}}),
        is_of_operator="clusterpolicy" in owners or "gpu-operator" in owners,
    )


def is_static(pod: Object) -> bool:
    """Tell whether a Pod mirrors a file on its node."""
    annotations = mapping(mapping(pod.get("metadata")).get("annotations"))
    return "kubernetes.io/config.mirror" in annotations


def pod_webhooks(configuration: Object) -> tuple[PodWebhook, ...]:
    """Return the webhooks of a MutatingWebhookConfiguration that see new pods."""
    return tuple(
        PodWebhook(
            configuration=name_of(configuration),
            name=text(webhook.get("name")),
            fails_closed=webhook.get("failurePolicy") == "Fail",
            is_reinvoked=webhook.get("reinvocationPolicy") == "IfNeeded",
            service=_service(webhook),
        )
        for webhook in mappings(configuration.get("webhooks"))
        if any(_sees_new_pods(rule) for rule in mappings(webhook.get("rules")))
    )


def extended_class(device_class: Object) -> str:
    """Return a DeviceClass's name where it stands for the standard request, else nothing."""
    spec = mapping(device_class.get("spec"))
    return name_of(device_class) if spec.get("extendedResourceName") == RESOURCE else ""


def is_gpu_slice(resource_slice: Object) -> bool:
    """Tell whether a ResourceSlice is of NVIDIA's DRA driver."""
    return mapping(resource_slice.get("spec")).get("driver") == _DRA_DRIVER


def _sees_new_pods(rule: Object) -> bool:
    groups, resources = texts(rule.get("apiGroups")), texts(rule.get("resources"))
    operations = texts(rule.get("operations"))
    return (
        any(group in ("", "*") for group in groups)
        and any(resource in ("pods", "*", "*/*", "pods/*") for resource in resources)
        and any(operation in ("CREATE", "*") for operation in operations)
    )


def _service(webhook: Object) -> str:
    service = mapping(mapping(webhook.get("clientConfig")).get("service"))
    return f"{text(service.get('namespace'))}/{text(service.get('name'))}" if service else ""


def _tag(images: list[str]) -> str:
    for image in images:
        _, colon, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
        if colon:
            return tag
    return ""

"""Whether the cluster itself can take gpudetour."""

from __future__ import annotations

import re

from doctor.facts.facts import version_of
from doctor.facts.runtime import HANDLER
from doctor.findings import Result, broken, not_applicable, ok, unknown, warning
from preflight.flavor import flavor_of, helm_install
from preflight.question import Check
from preflight.surroundings import Surroundings, Workload

NAMESPACE = "gpudetour-system"
#: ValidatingAdmissionPolicy is v1 from there on (KEP-3488).
_OLDEST_SERVER = (1, 30)
#: Device plugins name CDI devices from there on (KEP-4009).
_OLDEST_CDI = (1, 29)
_ENFORCE = "pod-security.kubernetes.io/enforce"
#: The API server's own words (pkg/registry/core/service/ipallocator).
_RANGE = re.compile(r"range of valid IPs is (\S+?/\d+)")
_MOST_NAMES = 5


def _server(seen: Surroundings) -> Result:
    version = version_of(seen.version)
    if not version:
        return unknown(f"the API server calls itself {seen.version or 'nothing'}")
    if version[:2] < _OLDEST_SERVER:
        return broken(
            f"the API server is {seen.version}, and 1.30 is the first with"
            " ValidatingAdmissionPolicy",
            "# upgrade the cluster to Kubernetes 1.30 or later",
        )
    return ok(seen.version)


def _policies(seen: Surroundings) -> Result:
    if seen.has_policies:
        return ok("admissionregistration.k8s.io/v1 serves ValidatingAdmissionPolicy")
    return broken(
        "the API server does not serve ValidatingAdmissionPolicy: the feature gate or the API is"
        " switched off",
        "# remove ValidatingAdmissionPolicy=false from --feature-gates, and"
        " admissionregistration.k8s.io/v1=false from --runtime-config, of kube-apiserver",
    )


def _rights(seen: Surroundings) -> Result:
    missing = [str(right) for right in seen.rights if not right.allowed]
    if not seen.rights:
        return unknown("the API server does not say what you may do")
    if missing:
        return broken(
            f"you may not {', '.join(missing[:_MOST_NAMES])}{_more(missing)}",
            "kubectl auth whoami",
            "# install as a cluster administrator (ClusterRole cluster-admin)",
        )
    return ok(f"you may do all {len(seen.rights)} things that an install does")


def _address(seen: Surroundings) -> Result:
    if seen.machines is None:
        return unknown("Nodes cannot be read, so the distribution is not known")
    address = seen.address
    if address is None:
        return not_applicable("no scheduler outside the extender's pod calls it")
    if address.owner == f"{NAMESPACE}/gpudetour-extender":
        return ok(f"{address.wanted} belongs to gpudetour's Service already")
    if address.owner:
        return broken(
            f"{address.wanted} belongs to Service {address.owner}",
            _other_address("ADDRESS", seen),
        )
    if not address.refusal:
        return ok(f"{address.wanted} is free")
    if (found := _RANGE.search(address.refusal)) is not None:
        return broken(
            f"{address.wanted} is not in the cluster's Service range {found[1]}",
            _other_address(f"ADDRESS  # one in {found[1]}", seen),
        )
    return unknown(f"the API server did not try {address.wanted}: {address.refusal[:160]}")


def _other_address(address: str, seen: Surroundings) -> str:
    preset = flavor_of(seen.machines or ()).preset or "kubeadm"
    return helm_install(preset, f"extender.clusterIP={address}")


def _pod_security(seen: Surroundings) -> Result:
    labels = seen.namespace_labels
    if labels is None:
        return ok(f"namespace {NAMESPACE} is not there yet; the install labels it")
    level = labels.get(_ENFORCE, "")
    if level in ("", "privileged"):
        return ok(f"namespace {NAMESPACE} enforces {level or 'what the cluster has by default'}")
    return broken(
        f"namespace {NAMESPACE} enforces Pod Security {level}, and the node agent needs hostPath"
        " volumes",
        f"kubectl label namespace {NAMESPACE} {_ENFORCE}=privileged --overwrite",
    )


def _runtime_class(seen: Surroundings) -> Result:
    if seen.runtime_classes is None:
        return unknown("RuntimeClasses cannot be read")
    handler = seen.runtime_classes.get(HANDLER)
    flavor = flavor_of(seen.machines or ())
    if handler is None and flavor.brings_runtime_class:
        return warning(
            f"RuntimeClass {HANDLER} is missing, which {flavor.name} of today brings itself, so"
            " that the shipped manifest leaves it out",
            helm_install(flavor.preset, "runtimeClass.create=true"),
        )
    if handler is None:
        return ok(f"RuntimeClass {HANDLER} is not there yet; the install brings it")
    if handler == HANDLER:
        return ok(f"RuntimeClass {HANDLER} has handler {HANDLER}")
    return warning(
        f"RuntimeClass {HANDLER} has handler {handler}, and the shipped one {HANDLER}; a handler"
        " cannot be changed, so kubectl apply would be refused there",
        "kubectl get runtimeclass nvidia -o yaml",
        "# leave it as it is and take the RuntimeClass out of the manifest, if that handler runs"
        " NVIDIA's runtime",
    )


def _kubelets(seen: Surroundings) -> Result:
    if seen.machines is None:
        return unknown("Nodes cannot be read")
    machines = [each for each in seen.machines if each.operating_system == "linux"]
    old = [each for each in machines if () < version_of(each.kubelet)[:2] < _OLDEST_CDI]
    if not machines:
        return warning("no node runs Linux; agents run on Linux only", "kubectl get nodes")
    if old:
        names = [f"{each.name} ({each.kubelet})" for each in old]
        return warning(
            f"{', '.join(names[:_MOST_NAMES])}{_more(names)}: GPUs get to containers by an"
            " environment variable there, not by CDI, which kubelet knows from 1.29 on",
            "# upgrade these nodes when you can; it works meanwhile",
        )
    return ok(f"Linux nodes: {len(machines)}, kubelet 1.29 or later on each")


def _distribution(seen: Surroundings) -> Result:
    if seen.machines is None:
        return unknown("Nodes cannot be read")
    if not seen.machines:
        return warning("there is no node yet", "kubectl get nodes")
    flavor = flavor_of(seen.machines)
    return ok(f"{flavor.name}: {flavor.command} (docs/install/{flavor.page}.md)")


def _installed(seen: Surroundings) -> Result:
    if seen.workloads is None:
        return unknown("Deployments cannot be read")
    ours = [each for each in seen.workloads if _is_ours(each)]
    if not ours:
        return ok("gpudetour is not installed yet")
    versions = sorted({each.version for each in ours if each.version})
    told = ", ".join(versions) or "of unknown version"
    if len(versions) > 1:
        return warning(
            f"gpudetour is installed in several versions: {told}",
            f"kubectl -n {NAMESPACE} rollout status deployment/gpudetour-webhook",
            "# finish the upgrade: apply one manifest again",
        )
    return ok(f"gpudetour {told} is installed; applying a newer manifest upgrades it")


def _is_ours(workload: Workload) -> bool:
    return workload.namespace == NAMESPACE and workload.name.startswith("gpudetour-")


def _more(names: list[str]) -> str:
    return f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""


CHECKS = (
    Check(
        id="server-version",
        title="The API server is Kubernetes 1.30 or later",
        why="policies keep GPU pods safe while our webhook is down, and they came with it",
        look=_server,
    ),
    Check(
        id="admission-policies",
        title="ValidatingAdmissionPolicy is served",
        why="without it nothing refuses GPU pods that passed no admission, or past leaders",
        look=_policies,
    ),
    Check(
        id="rights",
        title="You may do what an install does",
        why="half an install is worse than none",
        look=_rights,
    ),
    Check(
        id="distribution",
        title="The distribution is known",
        why="each configures its scheduler, and keeps its sockets, in another place",
        look=_distribution,
    ),
    Check(
        id="service-address",
        title="The extender's address can be had",
        why="kube-scheduler runs on the host network and cannot resolve names of Services",
        look=_address,
    ),
    Check(
        id="pod-security",
        title="Pod Security lets the node agent run",
        why="it opens kubelet's sockets and the driver's files by hostPath",
        look=_pod_security,
    ),
    Check(
        id="runtime-class",
        title="RuntimeClass nvidia is free or as shipped",
        why="GPU pods get it, and a class that leads to another runtime shows them no GPU",
        look=_runtime_class,
    ),
    Check(
        id="kubelet-versions",
        title="Every kubelet takes CDI devices",
        why="an older one works too, with the environment variable that NVIDIA's runtime reads",
        look=_kubelets,
    ),
    Check(
        id="installed",
        title="gpudetour is there in one version or not at all",
        why="parts of two versions work together only while an upgrade lasts",
        look=_installed,
    ),
)

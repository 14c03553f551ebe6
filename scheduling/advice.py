"""What to do with a configuration once it is printed: where it goes and what to restart. Pure.

Told on standard error and copied, so commands are whole lines. `NODE` and `FILE` stand for names
that only the admin knows.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from scheduling.flavors import FILE, Flavor


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was made: `folder` is where the files belong, `written` where they lie now, if any."""

    flavor: Flavor
    folder: str
    written: str = ""
    expires: datetime | None = None
    remarks: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Where kube-scheduler finds its configuration."""
        return f"{self.folder}/{FILE}"


def advice(outcome: Outcome) -> tuple[str, ...]:
    """Return the lines that follow a configuration."""
    return (
        *(f"Note: {remark}." for remark in outcome.remarks),
        *_lines(outcome),
        *_renewal(outcome),
    )


def heading(outcome: Outcome) -> tuple[str, ...]:
    """Return the comment at the head of the configuration."""
    said = [f"By gpudetour scheduler-config --flavor {outcome.flavor.name}."]
    if outcome.written:
        said.append(f"Certificates are in {outcome.folder}.")
    elif not outcome.flavor.is_ours:
        said.append("It holds a private key: keep it to root.")
    return tuple(f"# {line}" for line in said)


def _lines(outcome: Outcome) -> Iterator[str]:
    yield f"{outcome.flavor.title}:"
    yield from (f"  {line}" for line in _placing(outcome))
    yield from (f"  {line}" for line in _STEPS[outcome.flavor.name](outcome))


def _placing(outcome: Outcome) -> Iterator[str]:
    if not outcome.flavor.takes_files:
        return
    target = shlex.quote(outcome.folder)
    if not outcome.written:
        yield f"Put the output into {outcome.file}, mode 0600, on each server:"
        yield f"sudo install -D -m 0600 FILE {shlex.quote(outcome.file)}"
    elif outcome.written != outcome.folder:
        yield f"Copy {outcome.written} to {outcome.folder} on each server:"
        yield f"sudo install -d -m 0700 {target}"
        yield f"sudo cp -r --preserve=mode {shlex.quote(outcome.written)}/. {target}/"
    else:
        yield f"The files are in {outcome.folder}; put the same on each other server."


def _rancher(outcome: Outcome) -> Iterator[str]:
    name = outcome.flavor.name
    yield f"Add to /etc/rancher/{name}/config.yaml on each server (a file, not an API object):"
    yield "kube-scheduler-arg:"
    yield f'  - "config={outcome.file}"'
    if name == "rke2":
        yield "kube-scheduler-extra-mount:"
        yield f'  - "{outcome.folder}:{outcome.folder}:ro"'
    unit = "k3s" if name == "k3s" else "rke2-server"
    yield f"sudo systemctl restart {unit}   # one server after the other"


def _kubeadm(outcome: Outcome) -> Iterator[str]:
    yield "Add to the ClusterConfiguration (kubectl -n kube-system edit configmap kubeadm-config),"
    yield "so that upgrades keep it:"
    yield "scheduler:"
    yield "  extraArgs:"
    yield "    - name: config"
    yield f"      value: {outcome.file}"
    yield "  extraVolumes:"
    yield "    - name: gpudetour"
    yield f"      hostPath: {outcome.folder}"
    yield f"      mountPath: {outcome.folder}"
    yield "      readOnly: true"
    yield "      pathType: DirectoryOrCreate"
    yield "Then on each control plane machine, which restarts its scheduler:"
    yield "sudo kubeadm init phase control-plane scheduler --config FILE"
    yield "The same lines by hand: --config, volume and volumeMount in"
    yield "/etc/kubernetes/manifests/kube-scheduler.yaml; kubelet restarts the pod by itself."


def _k0s(outcome: Outcome) -> Iterator[str]:
    yield "Its scheduler runs as a user of its own, which must be able to read the files:"
    yield f"sudo chown -R kube-scheduler {shlex.quote(outcome.folder)}"
    yield "Add to /etc/k0s/k0s.yaml on each controller, and restart it:"
    yield "spec:"
    yield "  scheduler:"
    yield "    extraArgs:"
    yield f"      config: {outcome.file}"
    yield "sudo systemctl restart k0scontroller"
    yield "A controller that is no worker as well reaches no address of a Service: name one that it"
    yield "reaches with --address, or use --flavor second."


def _microk8s(outcome: Outcome) -> Iterator[str]:
    yield "Add to /var/snap/microk8s/current/args/kube-scheduler on each node, and restart:"
    yield f"--config={outcome.file}"
    yield "sudo snap restart microk8s.daemon-kubelite"


def _talos(outcome: Outcome) -> Iterator[str]:
    del outcome
    yield "The output is a patch of the machine configuration of control plane nodes; certificates"
    yield "are inside, as Talos has no place for files of others:"
    yield "talosctl -n NODE patch machineconfig --patch @FILE"
    yield "The scheduler restarts by itself."


def _second(outcome: Outcome) -> Iterator[str]:
    del outcome
    yield "It is installed with manifests/second-scheduler.yaml already, certificates are mounted"
    yield "there. Only where it was merged with profiles of your own:"
    yield "kubectl -n gpudetour-system create configmap gpudetour-scheduler \\"
    yield f"  --from-file={FILE}=FILE --dry-run=client -o yaml | kubectl apply -f -"
    yield "kubectl -n gpudetour-system rollout restart deployment/gpudetour-extender"


def _renewal(outcome: Outcome) -> Iterator[str]:
    if outcome.expires is None:
        return
    day = outcome.expires.date().isoformat()
    yield f"The client certificate expires on {day}. Run this again before, better once a quarter:"
    if outcome.written:
        yield "  tls.crt and tls.key are read anew without a restart, ca.crt only at a start."
    else:
        yield "  certificates in the configuration itself are read only when the scheduler starts."


_STEPS: Mapping[str, Callable[[Outcome], Iterator[str]]] = MappingProxyType(
    {
        "k3s": _rancher,
        "rke2": _rancher,
        "kubeadm": _kubeadm,
        "k0s": _k0s,
        "microk8s": _microk8s,
        "talos": _talos,
        "second": _second,
    }
)

"""The one table of programs: version, how to recognise an installed one, where to download, how to
build.

Data only. Looking, downloading and building are in the modules beside this one.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from localcluster.parts import runc_overlay

KUBERNETES = "1.34.2"
ETCD = "3.6.6"
CONTAINERD = "2.1.5"
RUNC = "1.3.3"
CNI = "1.9.1"
KWOK = "0.8.0"
HELM = "3.22.0"
PROMETHEUS = "3.16.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A published file and the file that holds its SHA-256."""

    url: str
    checksum_url: str
    member: str | None = None
    """Path inside the archive; None when the file is the program itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Go module from which one or several programs are built."""

    module: str
    version: str
    staging: str | None = None
    """The version standing in for sub-modules that the module keeps in its own tree, unversioned.
    """
    ldflags: str = "-s -w"
    tags: str = ""
    cgo: bool = False
    overlay: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Path inside the module to the text that replaces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Programs of one project and version: they share a cache folder, a lock and a Go module."""

    name: str
    version: str
    source: Source

    @property
    def folder(self) -> str:
        """Name of the group's folder in the cache."""
        return f"{self.name}-{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One program."""

    name: str
    group: Group
    package: str
    """The Go package that holds its main function."""
    release: Release | None = None
    version_arguments: tuple[str, ...] | None = None
    """What makes the program print its version; None when it cannot tell, so that PATH is not
    trusted.
    """
    version_pattern: str = ""
    """Regular expression that must be found in that output."""


class UnknownPart(Exception):
    """A name that is not in the table."""


def architecture() -> str:
    """Go's name for this machine's processor, as used in release file names."""
    machine = platform.machine()
    names = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    return names.get(machine, machine)


def catalogue(arch: str) -> MappingProxyType[str, Part]:
    """All programs by name, with downloads for processor `arch`."""
    parts = (
        *(*_kubernetes(arch), _etcd(arch), *_containerd(arch), _runc(arch), *_cni(arch)),
        *(_kwok(), _helm(arch), *_prometheus(arch)),
    )
    return MappingProxyType({part.name: part for part in parts})


def select(table: MappingProxyType[str, Part], names: frozenset[str]) -> tuple[Part, ...]:
    """The named parts in table order, or `UnknownPart` naming those that do not exist."""
    unknown = sorted(names - table.keys())
    if unknown:
        raise UnknownPart(f"no such part: {', '.join(unknown)}; known are {', '.join(table)}")
    return tuple(part for part in table.values() if part.name in names)


def _kubernetes(arch: str) -> tuple[Part, ...]:
    minor = KUBERNETES.split(".")[1]
    staging = "v0." + KUBERNETES.partition(".")[2]
    base = "k8s.io/component-base/version"
    settings = (
        f"{base}.gitVersion=v{KUBERNETES}",
        f"{base}.gitMajor=1",
        f"{base}.gitMinor={minor}",
        f"k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}",
    )
    group = Group(
        name="kubernetes",
        version=KUBERNETES,
        source=Source(
            module="k8s.io/kubernetes",
            version=f"v{KUBERNETES}",
            staging=staging,
            ldflags=" ".join(["-s -w", *(f"-X {setting}" for setting in settings)]),
        ),
    )

    def part(name: str, *arguments: str, pattern: str = rf"^Kubernetes v{KUBERNETES}\s*$") -> Part:
        url = f"https://dl.k8s.io/release/v{KUBERNETES}/bin/linux/{arch}/{name}"
        return Part(
            name=name,
            group=group,
            package=f"k8s.io/kubernetes/cmd/{name}",
            release=Release(url=url, checksum_url=f"{url}.sha256"),
            version_arguments=arguments or ("--version",),
            version_pattern=pattern.replace(".", r"\."),
        )

    return (
        part("kube-apiserver"),
        part("kube-controller-manager"),
        part("kube-scheduler"),
        part("kubelet"),
        part("kube-proxy"),
        part("kubectl", "version", "--client", pattern=rf"^Client Version: v{KUBERNETES}\s*$"),
    )


def _etcd(arch: str) -> Part:
    base = f"https://github.com/etcd-io/etcd/releases/download/v{ETCD}"
    stem = f"etcd-v{ETCD}-linux-{arch}"
    module = "go.etcd.io/etcd/server/v3"
    return Part(
        name="etcd",
        group=Group(name="etcd", version=ETCD, source=Source(module=module, version=f"v{ETCD}")),
        package=module,
        release=Release(
            url=f"{base}/{stem}.tar.gz", checksum_url=f"{base}/SHA256SUMS", member=f"{stem}/etcd"
        ),
        version_arguments=("--version",),
        version_pattern=rf"^etcd Version: {ETCD}\s*$".replace(".", r"\."),
    )


def _containerd(arch: str) -> tuple[Part, ...]:
    base = f"https://github.com/containerd/containerd/releases/download/v{CONTAINERD}"
    archive = f"{base}/containerd-static-{CONTAINERD}-linux-{arch}.tar.gz"
    module = "github.com/containerd/containerd/v2"
    group = Group(
        name="containerd",
        version=CONTAINERD,
        source=Source(module=module, version=f"v{CONTAINERD}", tags="no_btrfs no_devmapper no_zfs"),
    )

    def part(name: str, *arguments: str, pattern: str) -> Part:
        return Part(
            name=name,
            group=group,
            package=f"{module}/cmd/{name}",
            release=Release(url=archive, checksum_url=f"{archive}.sha256sum", member=f"bin/{name}"),
            version_arguments=arguments,
            version_pattern=pattern,
        )

    number = CONTAINERD.replace(".", r"\.") + r"(\+unknown)?(\s|$)"
    return (
        part(
            "containerd", "--version", pattern=rf"^containerd github\.com/containerd\S* v?{number}"
        ),
        part("ctr", "--version", pattern=rf"^ctr github\.com/containerd\S* v?{number}"),
        part("containerd-shim-runc-v2", "-v", pattern=rf"^\s*Version:\s+v?{number}"),
    )


def _runc(arch: str) -> Part:
    base = f"https://github.com/opencontainers/runc/releases/download/v{RUNC}"
    module = "github.com/opencontainers/runc"
    # The local SELinux copy that runc replaces is not in the module archive; the released one that
    # it requires is used.
    overlay = {runc_overlay.FILE: runc_overlay.TEXT}
    source = Source(module=module, version=f"v{RUNC}", cgo=True, overlay=overlay)
    return Part(
        name="runc",
        group=Group(name="runc", version=RUNC, source=source),
        package=module,
        release=Release(url=f"{base}/runc.{arch}", checksum_url=f"{base}/runc.sha256sum"),
        version_arguments=("--version",),
        version_pattern=rf"^runc version {RUNC}\s*$".replace(".", r"\."),
    )


def _cni(arch: str) -> tuple[Part, ...]:
    base = f"https://github.com/containernetworking/plugins/releases/download/v{CNI}"
    archive = f"{base}/cni-plugins-linux-{arch}-v{CNI}.tgz"
    module = "github.com/containernetworking/plugins"
    group = Group(name="cni", version=CNI, source=Source(module=module, version=f"v{CNI}"))
    return tuple(
        Part(
            name=name,
            group=group,
            package=f"{module}/plugins/{kind}/{name}",
            release=Release(url=archive, checksum_url=f"{archive}.sha256", member=f"./{name}"),
        )
        for kind, name in (("ipam", "host-local"), ("main", "loopback"), ("main", "ptp"))
    )


def _kwok() -> Part:
    module = "sigs.k8s.io/kwok"
    # The project publishes binaries without checksums, so they are not downloaded.
    return Part(
        name="kwok",
        group=Group(name="kwok", version=KWOK, source=Source(module=module, version=f"v{KWOK}")),
        package=f"{module}/cmd/kwok",
        version_arguments=("--version",),
        version_pattern=rf"v?{KWOK}(\s|$)".replace(".", r"\."),
    )


def _helm(arch: str) -> Part:
    url = f"https://get.helm.sh/helm-v{HELM}-linux-{arch}.tar.gz"
    module = "helm.sh/helm/v3"
    major, minor, _patch = KUBERNETES.split(".")
    # The version of Kubernetes for which charts are rendered where no cluster is asked.
    settings = [f"{module}/internal/version.version=v{HELM}"]
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        settings += [
            f"{module}/{package}.k8sVersionMajor={major}",
            f"{module}/{package}.k8sVersionMinor={minor}",
        ]
    ldflags = " ".join(["-s -w", *(f"-X {setting}" for setting in settings)])
    return Part(
        name="helm",
        group=Group(
            name="helm",
            version=HELM,
            source=Source(module=module, version=f"v{HELM}", ldflags=ldflags),
        ),
        package=f"{module}/cmd/helm",
        release=Release(url=url, checksum_url=f"{url}.sha256sum", member=f"linux-{arch}/helm"),
        version_arguments=("version", "--short"),
        version_pattern=rf"^v{HELM}(\+\S+)?\s*$".replace(".", r"\."),
    )


def _prometheus(arch: str) -> tuple[Part, ...]:
    base = f"https://github.com/prometheus/prometheus/releases/download/v{PROMETHEUS}"
    stem = f"prometheus-{PROMETHEUS}.linux-{arch}"
    module = "github.com/prometheus/prometheus"
    major, minor, patch = PROMETHEUS.split(".")
    version = f"github.com/prometheus/common/version.Version={PROMETHEUS}"
    source = Source(
        module=module,
        # Its Go module never left v0: 3.16.0 is v0.316.0 there.
        version=f"v0.{major}{minor:0>2}.{patch}",
        ldflags=f"-s -w -X {version}",
        # Targets are named in a file here; finding them in clouds is most of what is compiled.
        tags="remove_all_sd",
    )
    group = Group(name="prometheus", version=PROMETHEUS, source=source)
    return tuple(
        Part(
            name=name,
            group=group,
            package=f"{module}/cmd/{name}",
            release=Release(
                url=f"{base}/{stem}.tar.gz",
                checksum_url=f"{base}/sha256sums.txt",
                member=f"{stem}/{name}",
            ),
            version_arguments=("--version",),
            version_pattern=rf"^{name}, version {PROMETHEUS}\s".replace(".", r"\."),
        )
        for name in ("prometheus", "promtool")
    )

"""CDI specs: there where they are needed, readable, and true."""

from __future__ import annotations

import shlex
from collections import Counter

from doctor import remedies
from doctor.checks.hardware import HOST_GPU
from doctor.facts.facts import OWN_CDI_KIND, Facts, version_of
from doctor.facts.runtime import CdiFile
from doctor.findings import Check, Result, broken, not_applicable, ok

_KIND = "nvidia.com/gpu"
#: Newest spec version that containerd reads, by its own version (its go.mod, release by release).
CONTAINERD_READS = (
    ((2, 1), (1, 0)),
    ((1, 7, 27), (0, 8)),
    ((1, 7, 16), (0, 7)),
    ((1, 7, 10), (0, 6)),
    ((1, 7), (0, 5)),
)
_RESTART_AGENT = "kubectl -n gpudetour-system rollout restart daemonset gpudetour-node-agent"


def _readable(facts: Facts) -> Result:
    bad = [file for file in _ours(facts, with_faults=True) if file.fault]
    if not bad:
        return ok(f"{len(facts.host.cdi)} CDI specs, all readable")
    return broken(
        f"{bad[0].path}: {bad[0].fault}", f"sudo rm {shlex.quote(bad[0].path)}", *_rewrite(bad[0])
    )


def _present(facts: Facts) -> Result:
    found = [file for file in facts.host.cdi if file.kind == _KIND and not file.fault]
    if found:
        return ok(f"{found[-1].path} with {len(found[-1].devices)} devices")
    mode = facts.host.toolkit.setting("nvidia-container-runtime", "mode")
    if mode == "cdi":
        return broken(
            "Found 0 CDI devices: no spec of nvidia.com/gpu, and the toolkit's mode is cdi",
            *remedies.refresh_cdi(),
        )
    return ok("no spec of nvidia.com/gpu, and none needed: the toolkit makes its own at each start")


def _stale(facts: Facts) -> Result:
    loaded = facts.host.driver.version
    for file in _ours(facts):
        others = sorted(file.driver_versions - {loaded})
        if loaded and others and loaded not in file.driver_versions:
            return broken(
                f"{file.path} was written for driver {others[0]}, and {loaded} is loaded",
                *_rewrite(file),
            )
        if file.missing:
            return broken(
                f"{file.path} names {file.missing[0]}, which does not exist", *_rewrite(file)
            )
    if not _ours(facts):
        return not_applicable("no CDI specs of GPUs")
    return ok("all files that CDI specs name exist")


def _version(facts: Facts) -> Result:
    kind, version = facts.runtime_version()
    readable = next((cdi for since, cdi in CONTAINERD_READS if version >= since), None)
    if kind != "containerd" or readable is None:
        return not_applicable("it is not known which CDI version the runtime reads")
    newer = [file for file in _ours(facts) if version_of(file.version)[:2] > readable]
    shown = ".".join(map(str, version))
    if not newer:
        return ok(f"containerd {shown} reads CDI up to {readable[0]}.{readable[1]}")
    return broken(
        f"{newer[0].path} is of CDI version {newer[0].version[:20]}, and containerd {shown} reads"
        f" up to {readable[0]}.{readable[1]}",
        "# update containerd, or keep the toolkit at 1.18, whose specs are older",
        "sudo apt-get install -y --allow-downgrades nvidia-container-toolkit=1.18.2-1",
        *remedies.refresh_cdi(),
    )


def _conflict(facts: Facts) -> Result:
    named = Counter(
        (file.path.rpartition("/")[0], f"{file.kind}={device}")
        for file in facts.host.cdi
        if not file.fault
        for device in set(file.devices)
    )
    twice = sorted(key for key, count in named.items() if count > 1)
    if not twice:
        return ok("no device is described twice in one folder")
    folder, device = twice[0]
    paths = [f.path for f in facts.host.cdi if f.path.startswith(folder) and not f.fault
             and device.partition("=")[2] in f.devices]  # fmt: skip
    return broken(
        f"{device} is described by {' and '.join(paths[:3])}: runtimes then resolve it to nothing",
        f"sudo rm {shlex.quote(paths[0])}",
        *remedies.refresh_cdi(),
    )


def _ours(facts: Facts, *, with_faults: bool = False) -> list[CdiFile]:
    """Return the specs of GPUs; a file that cannot be read is known by its name only."""
    return [
        file
        for file in facts.host.cdi
        if (file.fault and with_faults and ("nvidia" in file.path or "gpudetour" in file.path))
        or (not file.fault and ("nvidia.com/" in file.kind or file.kind == OWN_CDI_KIND))
    ]


def _rewrite(file: CdiFile) -> tuple[str, ...]:
    if file.kind == OWN_CDI_KIND or "gpudetour" in file.path:
        return (_RESTART_AGENT,)
    if file.path.startswith("/etc/cdi/"):
        return (
            f"sudo nvidia-ctk cdi generate --output={shlex.quote(file.path)}",
            *remedies.refresh_cdi()[:1],
        )
    return remedies.refresh_cdi()


_DRIVER = ("driver-loaded", "driver-library-version", "device-nodes", "device-uvm")

CHECKS = (
    Check(
        id="cdi-readable",
        title="CDI specs of GPUs can be read",
        why="a runtime leaves out a spec that it cannot read, and its devices with it",
        look=_readable,
        needs=HOST_GPU,
    ),
    Check(
        id="cdi-present",
        title="There is a CDI spec where one is needed",
        why='"Found 0 CDI devices" matters in mode cdi only; other modes need no spec on disk',
        look=_present,
        needs=HOST_GPU,
        causes=("cdi-readable", *_DRIVER),
    ),
    Check(
        id="cdi-stale",
        title="CDI specs fit the driver",
        why="containers fail on files that an update took away, or get libraries of the old driver",
        look=_stale,
        needs=HOST_GPU,
        causes=(*_DRIVER, "toolkit-installed"),
    ),
    Check(
        id="cdi-version",
        title="The runtime reads CDI specs of that version",
        why="toolkit 1.19.1 and later write version 0.7.0, which older runtimes refuse",
        look=_version,
        needs=HOST_GPU,
    ),
    Check(
        id="cdi-conflict",
        title="No CDI device is described twice",
        why="of two equals in one folder a runtime takes neither: unresolvable CDI devices",
        look=_conflict,
        needs=HOST_GPU,
    ),
)

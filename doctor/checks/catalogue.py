"""All checks, from the hardware up; the order is that in which causes are told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from doctor.checks import (
    cdi,
    cluster,
    driver,
    hardware,
    kubelet,
    plugin,
    plugin_log,
    runtime,
    toolkit,
)
from doctor.findings import Check

#: On what each layer's checks rest. Files of single processes are left out: those are closed to
#: everybody but root, and nothing but `toolkit-runc` rests on them.
_KERNEL = ("/sys/", "/proc/driver", "/proc/modules", "/proc/devices", "/proc/sys")
_SYSTEM = ("/usr", "/lib", "/bin", "/sbin", "/opt", "/run/nvidia", "/home")
_CONFIG = ("/etc", "/var/lib/rancher", "/var/snap", "/var/lib/k0s", "/usr/local/nvidia")


def _resting_on(checks: Iterable[Check], *paths: str) -> Iterator[Check]:
    return (replace(check, reads=paths) for check in checks)


CHECKS: tuple[Check, ...] = (
    *_resting_on(hardware.CHECKS, *_KERNEL),
    *_resting_on(driver.CHECKS, *_KERNEL, *_SYSTEM, "/dev"),
    *_resting_on(toolkit.CHECKS, *_SYSTEM, *_CONFIG),
    *_resting_on(runtime.CHECKS, *_SYSTEM, *_CONFIG),
    *_resting_on(cdi.CHECKS, *_SYSTEM, *_CONFIG, "/dev", "/var/run", "/run"),
    *_resting_on(kubelet.CHECKS, "/var"),
    *plugin.CHECKS,
    *plugin_log.CHECKS,
    *_resting_on(cluster.CHECKS, *_CONFIG),
)

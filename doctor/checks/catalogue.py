"""All checks, from the hardware up; the order is that in which causes are told."""

from __future__ import annotations

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

CHECKS = (
    *hardware.CHECKS,
    *driver.CHECKS,
    *toolkit.CHECKS,
    *runtime.CHECKS,
    *cdi.CHECKS,
    *kubelet.CHECKS,
    *plugin.CHECKS,
    *plugin_log.CHECKS,
    *cluster.CHECKS,
)

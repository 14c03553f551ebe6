"""The ways to place GPU pods that are compared. What is measured of them is in `experiment`.

All run the same kube-scheduler with the shipped configuration; the baseline leaves out nothing but
the extender.
"""

from __future__ import annotations

import json
from enum import Enum

from gpus.model import Path
from localcluster import shipped
from localcluster.cluster import LocalCluster
from localcluster.files import write_atomically
from localcluster.stack import Stack


class System(Enum):
    """Who counts GPUs, and where."""

    NATIVE = "kube-scheduler alone"
    ANNOTATION = "annotation path"
    PLUGIN = "plugin path"

    @property
    def path(self) -> Path | None:
        """How nodes serve GPUs under gpudetour; None where it is not there."""
        match self:
            case System.NATIVE:
                return None
            case System.ANNOTATION:
                return Path.ANNOTATION
            case System.PLUGIN:
                return Path.PLUGIN


class Placement:
    """One system on one cluster. The scheduler does not run until `start_scheduler`."""

    def __init__(self, system: System, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.stack = None if system is System.NATIVE else Stack(cluster)

    def prepare(self) -> None:
        """Start all but the scheduler, and be ready for pods."""
        if self.stack is not None:
            self.stack.install()
        self._cluster.stop_scheduler()

    def start_scheduler(self) -> None:
        """Start the scheduler; returns when it is healthy, maybe already working."""
        if self.stack is not None:
            self.stack.use_extender()
            return
        configuration = shipped.scheduler_configuration("", client=self._cluster.state)
        del configuration["extenders"]
        target = self._cluster.state / "scheduler-alone.json"
        write_atomically(target, json.dumps(configuration, indent=2).encode())
        self._cluster.restart_scheduler(target)

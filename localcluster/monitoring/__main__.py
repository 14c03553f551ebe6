"""`python -m localcluster.monitoring`: draws the dashboard, row by row, from a living cluster.

A site with three nodes is brought up, pods come and go and keep their GPUs busy, a real Prometheus
scrapes it all, and what it answers to the dashboard's queries is drawn into docs/pictures.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import click

from gpus.annotations import ASSIGNED, decode_assigned
from localcluster.api import Object
from localcluster.chromium import Chromium
from localcluster.cluster import LocalCluster
from localcluster.controlplane import PARTS
from localcluster.monitoring.dashboard import Row, rows
from localcluster.monitoring.drawing import WIDTH, height, page
from localcluster.monitoring.prometheus import Prometheus, Series
from localcluster.monitoring.site import MonitoredSite
from localcluster.parts.obtain import ensure
from localcluster.parts.progress import progress_on
from localcluster.settings import default_settings
from localcluster.shipped import MANIFESTS
from localcluster.simulated import PART as KWOK

PICTURES = MANIFESTS.parent / "docs" / "pictures"
ALERTS = MANIFESTS / "monitoring" / "alerts.yaml"
NODES = {"desk": "2x-rtx-4090", "lab": "4x-a100", "train": "8x-h100"}
_NAMESPACE = "research"
_PODS = f"/api/v1/namespaces/{_NAMESPACE}/pods"
#: Seconds between steps of the life that is played, and between samples.
_STEP = 1.5
_SAMPLES = 2.0


@click.command(context_settings={"show_default": True})
@click.option("--seconds", type=click.IntRange(30), default=180, help="How long life is played.")
@click.option("--into", type=click.Path(path_type=Path), default=PICTURES)
def main(seconds: int, into: Path) -> None:
    """Draw the rows of the dashboard from real data."""
    progress = progress_on(sys.stderr)
    parts = ensure([*PARTS, KWOK, "prometheus"], settings=default_settings(), progress=progress)
    with TemporaryDirectory(prefix="gd") as name:
        folder = Path(name)
        with LocalCluster(folder / "c", progress=progress) as cluster:
            site = MonitoredSite(cluster, folder)
            site.up(NODES)
            server = Prometheus(parts["prometheus"], cluster.processes, folder / "prometheus")
            server.start(site, rules=ALERTS)
            begin = time.time()
            _Life(site).play(seconds)
            for row in rows(rate_interval="15s"):
                _draw(row, server, begin=begin, into=into)


class _Life:
    """Pods that come, compute and go; the same for every run."""

    def __init__(self, site: MonitoredSite) -> None:
        self._site = site
        self._api = site.stack.cluster.api
        self._random = random.Random(7)  # noqa: S311 - no secret
        self._count = 0

        # Each GPU has work of its own weight.
        uuids = [uuid for machine in site.machines.values() for uuid in machine.uuids]
        self._load = {uuid: self._random.randint(35, 98) for uuid in uuids}

    def play(self, seconds: float) -> None:
        """Go on for that long; a GPU is lost on the way."""
        self._api.create("/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
        account = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts/default"
        self._site.stack.cluster.wait_for(account, bool)
        end, half = time.monotonic() + seconds, time.monotonic() + seconds / 2
        lost = False
        while time.monotonic() < end:
            if not lost and time.monotonic() > half:
                machine = self._site.machines["train"]
                machine.lose(machine.uuids[5])
                lost = True
            self._turn()
            time.sleep(_STEP)

    def _turn(self) -> None:
        pods = self._api.get(_PODS)["items"]
        if len(pods) < 9:
            self._api.create(_PODS, self._pod())
        elif self._random.random() < 0.6:
            name = self._random.choice(pods)["metadata"]["name"]
            arguments = ("delete", "pod", name, "-n", _NAMESPACE, "--force", "--grace-period=0")
            self._site.stack.cluster.kubectl(*arguments, check=False)
        self._compute(pods)

    def _pod(self) -> Object:
        self._count += 1
        gpus = self._random.choice((1, 1, 2, 2, 4))
        limits = {"nvidia.com/gpu": gpus}
        container = {"name": "train", "image": "gpudetour.local/cuda:1"}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"job-{self._count}"},
            "spec": {"containers": [{**container, "resources": {"limits": limits}}]},
        }

    def _compute(self, pods: list[Object]) -> None:
        """Let GPUs that are held be busy, and the others cool down."""
        texts = [(pod["metadata"].get("annotations") or {}).get(ASSIGNED) for pod in pods]
        held = {device for text in texts if text for device in decode_assigned(text).devices()}
        for machine in self._site.machines.values():
            for uuid in machine.uuids:
                busy = self._load[uuid] if uuid in held else 0
                machine.facts(
                    uuid,
                    utilization_gpu=busy,
                    memory_used=(busy * 180 << 20) if busy else 0,
                    temperature=34 + busy * 4 // 10,
                    power_usage=(60 + busy * 3) * 1000,
                )


def _draw(row: Row, server: Prometheus, *, begin: float, into: Path) -> None:
    answers: dict[str, list[Series]] = {}
    for panel in row.panels:
        for query in panel.queries:
            text = query.expression
            if panel.kind == "timeseries":
                now = time.time()
                answers[text] = server.over(text, begin=begin, end=now, step=_SAMPLES)
            else:
                answers[text] = server.instant(text)
    target = into / f"dashboard-{row.title.lower()}.png"
    with Chromium() as browser:
        tab = browser.tab(width=WIDTH, height=height(row))
        tab.go("data:text/html;charset=utf-8," + quote(page(row, answers)))
        tab.until("document.readyState === 'complete' && !!document.querySelector('.p')")
        tab.picture(target)
    click.echo(f"{target}: {target.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()

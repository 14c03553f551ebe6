"""A real Prometheus server that scrapes a monitored site."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from localcluster.monitoring.site import API_SERVER, MonitoredSite, Target
from localcluster.ports import free_ports
from localcluster.processes import Processes
from localcluster.stack import answers
from localcluster.waiting import until

_NAME = "prometheus"


class QueryError(Exception):
    """Prometheus refused a query; the text is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of an answer: times in seconds since 1970 with values."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class Prometheus:
    """The server; it ends with the processes of the cluster that it was started among."""

    def __init__(self, program: Path, processes: Processes, folder: Path) -> None:
        self._program = program
        self._processes = processes
        self._folder = folder
        self.url = ""

    def start(self, site: MonitoredSite, *, rules: Path, interval: str = "1s") -> None:
        """Scrape every part of the site each `interval`, and evaluate `rules`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = {name: t for name, t in site.targets.items() if name != API_SERVER}
        config = self._folder / "prometheus.json"
        config.write_text(json.dumps(configuration(parts, rules=rules, interval=interval)))
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = [
            str(self._program),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._processes.start(_NAME, command)
        self._processes.wait_ready(_NAME, lambda: answers(f"{self.url}/-/ready"), timeout=60)
        until(self._all_scraped, timeout=60, what="every target scraped twice", interval=0.5)

    def instant(self, query: str) -> list[Series]:
        """What a query says now."""
        return self._ask("query", {"query": query})

    def over(self, query: str, *, begin: float, end: float, step: float) -> list[Series]:
        """What a query says from `begin` to `end` (seconds since 1970)."""
        window = {"start": str(begin), "end": str(end), "step": str(step)}
        return self._ask("query_range", {"query": query, **window})

    def firing(self) -> list[str]:
        """The names of the alerts that fire or are about to."""
        answer = self._get("/api/v1/alerts")
        return [alert["labels"]["alertname"] for alert in answer["alerts"]]

    def _all_scraped(self) -> bool:
        found = self.instant('count_over_time(up{job="gpudetour"}[1m])')
        return bool(found) and all(series.points[-1][1] >= 3 for series in found)

    def _ask(self, verb: str, parameters: Mapping[str, str]) -> list[Series]:
        answer = self._get(f"/api/v1/{verb}?{urlencode(parameters)}")
        if answer["resultType"] == "scalar":
            return [Series(labels={}, points=[_point(answer["result"])])]
        return [
            Series(
                labels=found["metric"],
                points=[_point(p) for p in found.get("values") or [found["value"]]],
            )
            for found in answer["result"]
        ]

    def _get(self, path: str) -> Any:
        with urllib3.PoolManager(retries=False, timeout=30.0) as pool:
            answer = json.loads(pool.request("GET", self.url + path).data)
        if answer["status"] != "success":
            raise QueryError(answer["error"])
        return answer["data"]


def configuration(
    targets: Mapping[str, Target], *, rules: Path, interval: str
) -> dict[str, object]:
    """A configuration of Prometheus with these targets, whose labels a scrape puts on them."""
    jobs = {target.labels["job"] for target in targets.values()}
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {
                "job_name": job,
                # As in the shipped configuration: parts name nodes and pods of their own.
                "honor_labels": True,
                "scrape_timeout": interval,
                "static_configs": [
                    {
                        "targets": [urlsplit(target.url).netloc],
                        "labels": {k: v for k, v in target.labels.items() if k != "job"},
                    }
                    for target in targets.values()
                    if target.labels["job"] == job
                ],
            }
            for job in sorted(jobs)
        ],
    }


def _point(raw: Sequence[object]) -> tuple[float, float]:
    at, value = raw
    return float(str(at)), float(str(value))

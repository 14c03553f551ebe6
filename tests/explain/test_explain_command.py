"""`gpudetour explain` as people and programs call it, on a real control plane."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from cli.__main__ import main
from explain.causes import Cause
from gpus.model import Health
from localcluster.waiting import until
from tests.builders import node
from tests.cluster.pods import gpu_pod
from tests.explain.site import TIMEOUT, Site

pytestmark = pytest.mark.controlplane


def run(site: Site, *arguments: str) -> Result:
    kubeconfig = str(site.stack.cluster.admin_kubeconfig)
    return CliRunner().invoke(main, ["explain", *arguments, "--kubeconfig", kubeconfig])


def test_a_waiting_pod_is_explained_to_people_and_to_programs(site: Site) -> None:
    site.node(node("full").with_gpus(1).annotation_path())
    site.holder(gpu_pod("holder"))
    site.pod(gpu_pod("a"))
    site.first("a", Cause.IN_USE)
    # The nodes are read at once; the scheduler has its say when it has tried.
    until(lambda: site.ask("a").scheduler, timeout=TIMEOUT, what="the scheduler's words")

    text, report = run(site, "pod", "a"), run(site, "pod", "pod/a", "-n", "default", "-o", "json")

    assert text.exit_code == 0
    assert text.stdout.startswith("WAITS: pod default/a: all GPUs that would do are in use\n")
    assert "when one of these pods ends: default/holder on full" in text.stdout
    assert "docs/troubleshooting.md#gpus-in-use" in text.stdout
    told = json.loads(report.stdout)
    assert told["causes"][0]["id"] == "gpus-in-use"
    assert told["causes"][0]["holders"] == ["default/holder on full"]
    assert told["scheduler"].startswith("0/1 nodes are available: 1 all GPUs in use")


def test_a_pod_that_does_not_exist_is_status_1(site: Site) -> None:
    result = run(site, "pod", "nobody")

    assert result.exit_code == 1
    assert "there is no pod default/nobody" in result.stdout


def test_wrong_usage_is_told(site: Site) -> None:
    assert "name it with -n instead of -A" in run(site, "pod", "a", "-A").stderr
    assert "job/a is no pod" in run(site, "pod", "job/a").stderr


def test_a_node_says_whether_it_takes_gpu_pods(site: Site) -> None:
    site.node(node("good").with_gpus(2).annotation_path(), lease=True)
    site.node(node("sick").with_gpus(1).health(Health.LOST, 0).annotation_path(), lease=False)

    good, sick = run(site, "node", "good"), run(site, "node", "node/sick", "-o", "json")

    assert good.stdout.startswith("SERVES: node good has 2 GPUs free (path annotation)\n")
    assert "alive, heard of" in good.stdout
    told = json.loads(sick.stdout)
    assert told["cause"]["id"] == "agent-silent"
    assert told["heartbeat"].startswith("silent")


def test_a_node_that_does_not_exist_is_an_error(site: Site) -> None:
    result = run(site, "node", "nowhere")

    assert result.exit_code == 1
    assert "nowhere" in result.stderr

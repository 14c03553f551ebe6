"""What people see of a cluster by `gpudetour`, called as they call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import shipped
from localcluster.stack import NAMESPACE, Stack
from localcluster.waiting import until
from tests.cluster.conftest import NODES
from tests.cluster.pods import Create, Object, PodWhen, asking, bound, gpu_pod

pytestmark = pytest.mark.controlplane

_PROGRAMS = Path(sys.executable).parent
_PATIENCE = 60.0


class Shell:
    """Runs `gpudetour` with the administrator's kubeconfig, or another."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        kubectl = stack.cluster.program("kubectl").parent
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")},
            "PATH": os.pathsep.join((str(_PROGRAMS), str(kubectl), os.environ["PATH"])),
            "KUBECONFIG": str(stack.cluster.admin_kubeconfig),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(_PROGRAMS / "gpudetour"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def run(
        self, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(_PROGRAMS / "gpudetour"), *arguments],
            capture_output=True,
            text=True,
            env={**self.environment, **(env or {})},
            check=False,
            timeout=_PATIENCE,
        )
        assert done.returncode == status, done.stderr
        return done

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run(*arguments, "-o", "json").stdout)
        return found

    def as_user(self, user: str) -> Mapping[str, str]:
        return {"KUBECONFIG": str(self._stack.cluster.kubeconfig_for(user))}


@pytest.fixture
def shell(stack: Stack) -> Shell:
    return Shell(stack)


@pytest.fixture
def holder(create: Create, pod_when: PodWhen) -> Object:
    """A pod that holds two GPUs."""
    create(gpu_pod("holder", gpus=2))
    return pod_when("holder", bound)


def test_nodes_show_what_they_have_and_what_is_free(shell: Shell, holder: Object) -> None:
    node = holder["spec"]["nodeName"]

    header, *lines = shell.run("nodes").stdout.splitlines()

    assert " ".join(header.split()) == "NODE PATH DRIVER GPUS FREE HELD UNFIT BEAT HEALTH"
    assert [line.split()[0] for line in lines] == sorted(NODES)
    (row,) = shell.rows("nodes", node)
    assert (row["path"], row["devices"], row["held"] >= 2) == ("annotation", 8, True)
    assert row["free"] == 8 - row["held"]
    assert row["heartbeat"].endswith("Z")
    assert not row["silent"]


def test_every_format_names_the_same_nodes(shell: Shell) -> None:
    names = sorted(NODES)

    assert shell.run("nodes", "-o", "name").stdout.split() == [f"node/{name}" for name in names]
    assert [row["node"] for row in yaml.safe_load(shell.run("nodes", "-o", "yaml").stdout)] == names
    wide = shell.run("nodes", "-o", "wide", "--no-headers").stdout.splitlines()
    assert [line.split()[0] for line in wide] == names
    assert all("8 H100 80GB HBM3" in line for line in wide)


def test_a_gpu_shows_its_holder_and_says_why_there_are_no_figures(
    shell: Shell, holder: Object, namespace: str
) -> None:
    """Agents are no pods here, so nobody can be asked what a GPU does now."""
    done = shell.run("gpus", holder["spec"]["nodeName"])

    assert done.stdout.count(f"{namespace}/holder") == 2
    assert "no running node agent on 1 of 1 nodes" in done.stderr
    own = shell.rows("gpus", "-n", namespace)
    assert [row["holders"] for row in own] == [
        [{"pod": f"{namespace}/holder", "share_bytes": 0}]
    ] * 2


def test_pods_are_those_of_the_namespace_or_of_all(
    shell: Shell, create: Create, holder: Object, namespace: str
) -> None:
    create(asking("picky", {"nvidia.com/gpu": 1}, product="B200"))

    held, waiting = shell.rows("pods", "-n", namespace)

    assert (held["name"], held["asks"]) == ("holder", "2 nvidia.com/gpu")
    assert held["node"] == holder["spec"]["nodeName"]
    assert held["products"] == {"NVIDIA H100 80GB HBM3": 2}
    assert (waiting["phase"], waiting["node"], waiting["devices"]) == ("Pending", None, [])
    assert waiting["wishes"] == {"product": "B200"}
    everywhere = shell.rows("-A", "pods")
    assert {row["namespace"] for row in everywhere} >= {namespace}
    assert "No GPU pods found in namespace default; -A looks into all." in (
        shell.run("pods", "-n", "default").stderr
    )


def test_what_is_not_there_is_an_error(shell: Shell, namespace: str) -> None:
    assert "not found: nowhere" in shell.run("nodes", "nowhere", NODES[0], status=1).stderr
    assert "not found: ghost" in shell.run("pods", "ghost", "-n", namespace, status=1).stderr


def test_a_watch_tells_of_what_changes(
    shell: Shell, stack: Stack, create: Create, pod_when: PodWhen, namespace: str
) -> None:
    create(gpu_pod("first"))
    pod_when("first", bound)
    watch = shell.start("pods", "-n", namespace, "-w")
    assert watch.stdout is not None
    try:
        seen = iter(watch.stdout.readline, "")
        assert next(seen).split()[0] == "NAME"
        assert next(seen).startswith("first ")
        create(gpu_pod("second"))
        assert next(line for line in seen if line.startswith("second ") and " node-" in line)
        stack.cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/first", grace_seconds=0)
        assert next(line for line in seen if line.startswith("first ") and "Deleted" in line)
    finally:
        watch.terminate()
        watch.communicate()


@pytest.mark.parametrize("what", ["nodes", "gpus"])
def test_nodes_and_gpus_are_watched_until_ctrl_c(
    shell: Shell, create: Create, pod_when: PodWhen, namespace: str, what: str
) -> None:
    create(gpu_pod("early"))
    node = pod_when("early", bound)["spec"]["nodeName"]
    before = len(shell.rows(what))
    watch = shell.start(what, "-w", "--no-headers")
    assert watch.stdout is not None
    try:
        seen = iter(watch.stdout.readline, "")
        first = [next(seen) for _ in range(before)]
        assert any(line.startswith(f"{node} ") for line in first)
        create(gpu_pod("later"))
        later = pod_when("later", bound)["spec"]["nodeName"]
        assert next(
            line
            for line in seen
            if line.startswith(f"{later} ") and (what == "nodes" or f"{namespace}/later" in line)
        )
        watch.send_signal(signal.SIGINT)
        assert watch.wait(_PATIENCE) == 130
    finally:
        watch.kill()
        _, errors = watch.communicate()
    assert "Traceback" not in errors


def test_who_may_not_look_is_told_which_right_to_ask_for(shell: Shell) -> None:
    told = shell.run("nodes", status=1, env=shell.as_user("stranger")).stderr

    assert "you may not list" in told
    assert "kubectl create clusterrole list-" in told
    assert "--user='stranger'" in told


def test_who_may_see_pods_of_a_namespace_sees_what_they_hold(
    shell: Shell, stack: Stack, holder: Object, namespace: str
) -> None:
    del holder
    kubectl = stack.cluster.kubectl
    kubectl("create", "rolebinding", "see", "--clusterrole=view", "--user=dev", "-n", namespace)
    may = ("auth", "can-i", "list", "pods", "--as=dev", "-n", namespace)
    until(
        lambda: kubectl(*may, check=False).strip() == "yes",
        timeout=_PATIENCE,
        what="the right to see pods",
    )

    done = shell.run("pods", "-n", namespace, env=shell.as_user("dev"))

    assert "holder" in done.stdout
    assert "2 GPUs" in done.stdout
    assert "not all is shown, you may not list nodes" in done.stderr


def test_a_server_that_is_away_is_called_so(shell: Shell, tmp_path: Path) -> None:
    nowhere = Path(shell.environment["KUBECONFIG"]).read_text()
    file = tmp_path / "config"
    document = yaml.safe_load(nowhere)
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    folder = Path(shell.environment["KUBECONFIG"]).parent
    for entry in (document["clusters"][0]["cluster"], document["users"][0]["user"]):
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if key in entry:
                entry[key] = str(folder / entry[key])
    file.write_text(yaml.safe_dump(document))

    told = shell.run("pods", "--kubeconfig", str(file), status=1).stderr

    assert "no answer from the API server" in told


def test_words_are_completed_from_the_cluster(shell: Shell, namespace: str) -> None:
    done = shell.run(
        env={
            "_GPUDETOUR_COMPLETE": "bash_complete",
            "COMP_WORDS": "gpudetour nodes node-",
            "COMP_CWORD": "2",
        }
    )
    by_kubectl = subprocess.run(
        ["kubectl", "__complete", "gpudetour", "pods", "-n", namespace[:8]],
        capture_output=True,
        text=True,
        env=shell.environment,
        check=True,
    )

    assert done.stdout.split() == [f"plain,{name}" for name in sorted(NODES)]
    assert namespace in by_kubectl.stdout.split()


def test_it_is_a_plugin_of_kubectl(shell: Shell) -> None:
    done = subprocess.run(
        ["kubectl", "gpudetour", "nodes", "-o", "name"],
        capture_output=True,
        text=True,
        env=shell.environment,
        check=True,
    )

    assert done.stdout.split() == [f"node/{name}" for name in sorted(NODES)]


@pytest.fixture
def deployed(stack: Stack) -> Iterator[set[str]]:
    """The shipped Deployments, without pods, for the parts run as processes."""
    found = list(shipped.objects("Deployment"))
    for deployment in found:
        deployment["spec"]["replicas"] = 0
    stack.cluster.apply(found)
    names = {deployment["metadata"]["name"] for deployment in found}
    yield names
    stack.cluster.kubectl("delete", "deployments", *names, f"--namespace={NAMESPACE}")


def test_versions_are_those_of_all_parts(shell: Shell, stack: Stack, deployed: set[str]) -> None:
    told = json.loads(shell.run("version", "-o", "json").stdout)

    assert told["kubernetes"] == stack.cluster.api.get("/version")["gitVersion"]
    assert set(told["parts"]) == deployed
    assert set(told["parts"].values()) == {told["client"]}


@pytest.fixture
def recorded_often(stack: Stack) -> Iterator[None]:
    stack.stop("extender")
    stack.start_extender({"--usage-every": "1"})
    yield
    stack.stop("extender")
    stack.start_extender()


@pytest.mark.usefixtures("recorded_often")
def test_usage_is_what_was_held_and_outlives_the_leader(
    shell: Shell, stack: Stack, holder: Object, namespace: str
) -> None:
    del holder

    def held() -> float:
        rows = shell.rows("usage", "--since", "1h", "-n", namespace)
        return float(sum(row["gpu_hours"] for row in rows))

    first = until(held, timeout=_PATIENCE, what="GPU-hours of the namespace")
    stack.stop("extender")
    stack.start_extender({"--usage-every": "1"})

    until(lambda: held() > first, timeout=_PATIENCE, what="more of them")
    done = shell.run("usage", "--since", "1h")
    assert namespace in done.stdout
    assert "GPU-hours held of " in done.stderr
    nothing = shell.run("usage", "--since", "0s", "-n", "nobody-here").stdout
    assert nothing.splitlines()[1:] == []

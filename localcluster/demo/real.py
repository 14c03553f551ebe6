"""The chapters on the real node: kubelet and containerd, so they need root."""

from __future__ import annotations

import sys
from pathlib import Path

from localcluster import foreignplugin
from localcluster.demo.stage import PODS, Stage
from localcluster.stack import KubeletFolders

_NODE = "node1"
_PLUGIN = "foreign-plugin"
_PATH = (
    f"kubectl describe node {_NODE} | grep -E 'gpudetour.io/path|nvidia.com/gpu:|GPUPathHealthy'"
)
_TRAINING, _INFERENCE, _AFTERWARDS = "training", "inference", "afterwards"


def a_plugin_dies(stage: Stage) -> None:
    """Ours takes the resource over, and nobody moves."""
    tell = stage.narrator
    tell.chapter("A real node: another device plugin serves, and dies under a running pod")
    tell.say("`node1` is a real kubelet with containerd. Another vendor's plugin serves its GPUs.")
    root = _prepare(stage)
    tell.expect("kubelet advertises two GPUs", lambda: stage.allocatable(_NODE) == "2")
    _start_agent(stage, root)
    tell.expect("our agent stands aside", lambda: stage.path(_NODE) == "plugin")
    tell.run(f"kubectl apply -f {_TRAINING}.yaml", folder=PODS)
    tell.expect("a pod runs with the GPU that the other plugin chose", lambda: _sees_gpu(stage))
    before = stage.pod(_TRAINING)
    _show_environment(stage, _TRAINING)

    tell.say("Now the other plugin is killed.")
    stage.cluster.processes.stop(_PLUGIN)
    tell.expect(
        "our plugin takes the resource over",
        lambda: "gpudetour" in _path_reason(stage) and stage.allocatable(_NODE) == "2",
    )
    tell.run(_PATH)
    tell.run(f"kubectl apply -f {_INFERENCE}.yaml", folder=PODS)
    tell.expect("the next pod is served at once", lambda: stage.running(_INFERENCE))
    _show_environment(stage, _INFERENCE)
    tell.expect(
        "the running pod was not touched",
        lambda: _container(stage.pod(_TRAINING)) == _container(before),
    )


def the_other_path(stage: Stage) -> None:
    """The node is emptied, asked for the annotation path, and places again."""
    tell = stage.narrator
    tell.chapter("The empty node is switched to the annotation path")
    tell.run(f"kubectl delete pod {_TRAINING} {_INFERENCE}")
    tell.run(f"kubectl label node {_NODE} gpudetour.io/path=annotation")
    tell.expect("the agent gives the resource back", lambda: stage.path(_NODE) == "settling")
    tell.say(
        "kubelet would remember the resource for five minutes more. The node is empty, so its "
        "memory of devices may be cleared: kubelet is restarted without its checkpoint."
    )
    stage.cluster.node.forget_devices()
    tell.expect(
        "the path is annotation, and the stale zero is gone",
        lambda: stage.path(_NODE) == "annotation" and stage.allocatable(_NODE) is None,
        timeout=90,
    )
    tell.run(_PATH)
    tell.run(f"kubectl apply -f {_AFTERWARDS}.yaml", folder=PODS)
    tell.expect("a pod runs again", lambda: stage.running(_AFTERWARDS))
    _show_environment(stage, _AFTERWARDS)
    tell.expect(
        "its environment holds exactly the GPU that was assigned",
        lambda: (
            stage.environment_of(_AFTERWARDS).get("NVIDIA_VISIBLE_DEVICES")
            == ",".join(stage.devices_given(_AFTERWARDS).get("cuda", ["none"]))
        ),
    )
    tell.run("kubectl uncordon desk")


def _prepare(stage: Stage) -> Path:
    """Start the other plugin on the real node, and keep the simulated ones out of the way."""
    root = stage.machine(_NODE, "2x-rtx-4090")
    socket = stage.cluster.node.device_plugins / foreignplugin.SOCKET
    program = [sys.executable, "-m", foreignplugin.__name__]
    devices = ",".join(stage.gpus_below(root))
    stage.cluster.processes.start(_PLUGIN, [*program, socket, "nvidia.com/gpu", devices], grace=0)
    stage.narrator.run("kubectl cordon desk")
    return root


def _start_agent(stage: Stage, root: Path) -> None:
    node = stage.cluster.node
    folders = KubeletFolders(
        root=node.pod_resources_socket.parent.parent,
        device_plugins=node.device_plugins,
        cdi=node.cdi,
    )
    stage.stack.start_agent(_NODE, root, kubelet=folders)


def _sees_gpu(stage: Stage) -> bool:
    return stage.running(_TRAINING) and stage.environment_of(_TRAINING).get(
        "NVIDIA_VISIBLE_DEVICES", ""
    ).startswith("GPU-")


def _show_environment(stage: Stage, pod: str) -> None:
    stage.narrator.run(f"kubectl exec {pod} -- /bin/box env | grep -E 'NVIDIA|GPUDETOUR'")


def _path_reason(stage: Stage) -> str:
    annotations = stage.node(_NODE).get("metadata", {}).get("annotations") or {}
    return str(annotations.get("gpudetour.io/path-reason", ""))


def _container(pod: dict[str, object]) -> object:
    """What changes when a container is started anew."""
    status = pod.get("status")
    statuses = status.get("containerStatuses") if isinstance(status, dict) else None
    return [(s["containerID"], s["restartCount"]) for s in statuses or ()]

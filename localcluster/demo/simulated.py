"""The chapters that need no root: simulated nodes, each with an agent of its own."""

from __future__ import annotations

from localcluster.demo.stage import PODS, Stage
from localcluster.stack import CERTS, EXTENDER, WEBHOOK

_FIRST, _SECOND, _THIRD = "my-gpu-workload", "second-workload", "third-workload"


def the_complaint(stage: Stage) -> None:
    """A GPU node without a working device plugin."""
    tell = stage.narrator
    tell.chapter("Two GPUs that work, and a pod that never starts")
    tell.say(
        "Node `desk` has two RTX 4090 and a working driver. NVIDIA's device plugin says "
        '"Incompatible strategy detected auto ... No devices found", so kubelet advertises nothing.'
    )
    stage.cluster.create_simulated_nodes(["desk"])
    tell.run("kubectl get nodes")
    tell.file(PODS / f"{_FIRST}.yaml")
    tell.run(f"kubectl apply -f {_FIRST}.yaml", folder=PODS)
    tell.expect(
        'the pod is pending: "Insufficient nvidia.com/gpu"',
        lambda: stage.waits_because(_FIRST, "Insufficient nvidia.com/gpu"),
    )
    tell.run(f"kubectl events --for pod/{_FIRST}")


def the_install(stage: Stage) -> None:
    """gpudetour comes up from the shipped files."""
    tell = stage.narrator
    tell.chapter("gpudetour is installed")
    tell.say(
        "The shipped manifests are applied, certificates issued, webhook and extender started, "
        "kube-scheduler is given the shipped configuration, and `desk` gets its agent."
    )
    stage.stack.install()
    stage.stack.start_agent("desk", stage.machine("desk", "2x-rtx-4090"))
    tell.expect(
        "the agent found both GPUs and serves them by annotation: there is no kubelet socket here",
        lambda: stage.path("desk") == "annotation" and len(stage.gpus_of("desk")) == 2,
    )
    tell.run("kubectl describe node desk | grep -E 'gpudetour.io/(path|summary)|GPUPathHealthy'")
    said = tell.run("kubectl get serviceaccounts -n gpudetour-system -o name")
    tell.expect(
        "each part runs with the rights of its own service account",
        lambda: all(account in said for account in (CERTS, EXTENDER, WEBHOOK)),
    )


def one_gpu_each(stage: Stage) -> None:
    """The same pod again, a second one, and a third that has to wait."""
    tell = stage.narrator
    tell.chapter("The same pod again, unchanged")
    tell.say("It is created anew, because pods are changed at their creation only.")
    tell.run(f"kubectl replace --force --grace-period=0 -f {_FIRST}.yaml", folder=PODS)
    tell.expect("it runs", lambda: stage.running(_FIRST))
    env = "jsonpath='{.spec.runtimeClassName}  {.spec.containers[0].env}'"
    tell.run(f"kubectl get pod {_FIRST} -o {env}")
    tell.run(f"kubectl get configmap {_config_map(stage, _FIRST)} -o jsonpath='{{.data}}'")
    tell.expect(
        "its container is given exactly one GPU",
        lambda: len(stage.devices_given(_FIRST).get("cuda", [])) == 1,
    )

    tell.chapter("A second pod gets the other GPU, a third waits its turn")
    tell.run(f"kubectl apply -f {_SECOND}.yaml -f {_THIRD}.yaml", folder=PODS)
    tell.expect("two of the three run", lambda: _two_run(stage))
    waiting = next(name for name in (_SECOND, _THIRD) if not stage.running(name))
    served = _THIRD if waiting == _SECOND else _SECOND
    tell.expect(
        "the second has the other GPU",
        lambda: _devices(stage, _FIRST) | _devices(stage, served) == _all_devices(stage),
    )
    tell.expect(
        "the third knows why it waits", lambda: stage.waits_because(waiting, "all GPUs in use")
    )
    tell.run(f"kubectl events --for pod/{waiting}")
    left = _devices(stage, _FIRST)
    tell.run(f"kubectl delete pod {_FIRST} --wait=false")
    tell.expect("it moves in when the first leaves", lambda: stage.running(waiting))
    tell.expect("with the GPU that became free", lambda: _devices(stage, waiting) == left)


def a_fleet(stage: Stage) -> None:
    """More nodes, other cards, and a choice that follows the wires."""
    tell = stage.narrator
    tell.chapter("More nodes join, each with its own cards")
    for node, profile in (("attic", "rtx-5060-ti"), ("rack", "8x-h100"), ("slices", "a100-mig")):
        stage.simulate(node, profile)
    tell.expect(
        "their agents report",
        lambda: all(stage.path(node) == "annotation" for node in ("attic", "rack", "slices")),
    )
    tell.run("kubectl apply -f island.yaml", folder=PODS)
    tell.expect("a pod that asks for four GPUs runs on `rack`", lambda: stage.running("island"))
    tell.expect("and got four of one NUMA node", lambda: len(_numa_nodes(stage, "island")) == 1)


def _config_map(stage: Stage, pod: str) -> str:
    annotations = stage.pod(pod)["metadata"]["annotations"]
    return str(annotations["gpudetour.io/devices-from"])


def _two_run(stage: Stage) -> bool:
    return sum(stage.running(name) for name in (_FIRST, _SECOND, _THIRD)) == 2


def _devices(stage: Stage, pod: str) -> set[str]:
    return {device for devices in stage.devices_given(pod).values() for device in devices}


def _all_devices(stage: Stage) -> set[str]:
    return {gpu["uuid"] for gpu in stage.gpus_of("desk")}


def _numa_nodes(stage: Stage, pod: str) -> set[int]:
    given = _devices(stage, pod)
    return {gpu["numaNode"] for gpu in stage.gpus_of("rack") if gpu["uuid"] in given}

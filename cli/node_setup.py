"""`gpudetour node-setup`: the cloud-init that prepares a GPU node in the right order.

Pure but for the command itself: steps with their reasons in, YAML out. Nothing is run here.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

import click

from cli import node_steps
from cli.node_steps import File, Step

_WIDTH = 96
_RELEASE = re.compile(r"v1\.\d{2}\.\d{1,3}")
_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]{1,255}")

#: What each distribution adds behind the driver and the toolkit.
DISTRIBUTIONS = ("k3s", "kubeadm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that can be chosen about a node."""

    distribution: str
    kubernetes: str
    driver_branch: int
    server: str


@click.command(name="node-setup")
@click.option("--distro", "distribution", type=click.Choice(DISTRIBUTIONS), required=True)
@click.option("--kubernetes", default="v1.34.2", show_default=True, help="Release of Kubernetes.")
@click.option(
    "--driver-branch",
    default=580,
    show_default=True,
    type=click.IntRange(570, 999),
    help="Branch of NVIDIA's driver; 570 is the first with Blackwell.",
)
@click.option(
    "--server",
    default="https://CONTROL-PLANE:6443",
    show_default=True,
    help="URL of the API server that the node joins (K3s).",
)
def node_setup(distribution: str, kubernetes: str, driver_branch: int, server: str) -> None:
    """Print the cloud-init for a new GPU node on Ubuntu 22.04 or later.

    Each step comes with its reason. Secrets are not in it: the join token is in a file that you
    add.
    """
    if not _RELEASE.fullmatch(kubernetes):
        raise click.BadParameter("must be a release such as v1.34.2", param_hint="--kubernetes")
    if not _URL.fullmatch(server):
        raise click.BadParameter(
            "must be a URL such as https://10.0.0.1:6443", param_hint="--server"
        )
    plan = Plan(
        distribution=distribution,
        kubernetes=kubernetes,
        driver_branch=driver_branch,
        server=server,
    )
    click.echo(cloud_init(plan), nl=False)


def cloud_init(plan: Plan) -> str:
    """Return the document; its `runcmd` stops at the first command that fails."""
    steps = steps_of(plan)
    files = [file for step in steps for file in step.files]
    lines = [
        "#cloud-config",
        *_comment(
            f"A GPU node for {plan.distribution}, Kubernetes {plan.kubernetes}, NVIDIA's driver"
            f" {plan.driver_branch} with open kernel modules. The order matters: each step finds"
            " what it needs from those before. Output: /var/log/cloud-init-output.log"
        ),
        "write_files:",
        *(line for file in files for line in _file(file)),
        "runcmd:",
        "  - set -eu",
        *(line for number, step in enumerate(steps, start=1) for line in _step(number, step)),
    ]
    return "\n".join(lines) + "\n"


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """Return the steps in their order."""
    before = (
        node_steps.runc(),
        node_steps.driver(plan.driver_branch),
        node_steps.toolkit(),
        node_steps.cdi(),
    )
    if plan.distribution == "k3s":
        own = node_steps.k3s(plan.kubernetes, plan.server)
    else:
        own = (node_steps.containerd(), *node_steps.kubeadm(plan.kubernetes))
    return (*before, *own, node_steps.proof())


def _file(file: File) -> list[str]:
    return [
        *_comment(file.reason, indent="  "),
        f"  - path: {file.path}",
        f"    permissions: '{file.mode}'",
        "    content: |",
        *(f"      {line}".rstrip() for line in file.content.strip().splitlines()),
    ]


def _step(number: int, step: Step) -> list[str]:
    return [
        *_comment(f"{number}. {step.title}: {step.reason}", indent="  "),
        "  - |",
        *(f"    {line}".rstrip() for line in step.script.strip().splitlines()),
    ]


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )

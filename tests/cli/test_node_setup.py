"""The printed cloud-init: valid, in the right order, checked downloads, no secrets."""

from __future__ import annotations

import configparser
import re
import subprocess
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cli.__main__ import main

DISTRIBUTIONS = ("k3s", "kubeadm")
#: What proves each step, in the order in which they must run.
ORDER = {
    "k3s": (
        "set -eu",
        "--no-install-recommends ca-certificates curl gnupg runc",
        "nvidia-driver-580-open",
        "modprobe nvidia\n",
        "apt-get install -y nvidia-container-toolkit",
        "nvidia-cdi-refresh",
        "systemctl enable --now k3s-agent",
        "grep -q nvidia-container-runtime",
        "nvidia-smi -L\nls",
    ),
    "kubeadm": (
        "set -eu",
        "--no-install-recommends ca-certificates curl gnupg runc",
        "nvidia-driver-580-open",
        "modprobe nvidia\n",
        "apt-get install -y nvidia-container-toolkit",
        "nvidia-cdi-refresh",
        "nvidia-ctk runtime configure --runtime=containerd --cdi.enabled",
        "systemctl restart containerd",
        "systemctl enable kubelet",
        "kubeadm join",
        "nvidia-smi -L\nls",
    ),
}
#: Where public software may come from.
HOSTS = {"dl.k8s.io", "github.com", "nvidia.github.io"}


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["node-setup", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def document(distribution: str) -> dict[str, Any]:
    loaded = yaml.safe_load(printed("--distro", distribution))
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_it_is_cloud_init(distribution: str) -> None:
    text = printed("--distro", distribution)

    assert text.startswith("#cloud-config\n")
    assert set(document(distribution)) == {"write_files", "runcmd"}
    for file in document(distribution)["write_files"]:
        assert file["path"].startswith("/etc/")
        assert re.fullmatch("0[0-7]{3}", file["permissions"])
        assert file["content"].endswith("\n")
    assert all(isinstance(command, str) for command in document(distribution)["runcmd"])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_steps_are_in_the_order_in_which_they_need_each_other(distribution: str) -> None:
    script = "\n".join(document(distribution)["runcmd"])

    places = [script.find(mark) for mark in ORDER[distribution]]

    assert -1 not in places, ORDER[distribution][places.index(-1)]
    assert places == sorted(places)


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_command_is_valid_shell(distribution: str, shell: str) -> None:
    commands = document(distribution)["runcmd"]

    for script in [*commands, "\n".join(commands)]:
        done = subprocess.run(
            [shell, "-n"], input=script.encode(), capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b""), script


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_step_has_its_reason(distribution: str) -> None:
    text = printed("--distro", distribution)
    commands = text.partition("runcmd:\n")[2]

    reasons = re.findall(r"^  # (\d+)\. [^:]+: \S", commands, re.MULTILINE)

    assert [int(number) for number in reasons] == list(range(1, commands.count("\n  - |") + 1))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_downloads_come_from_their_makers_and_are_checked(distribution: str) -> None:
    script = "\n".join(document(distribution)["runcmd"])
    hosts = set(re.findall(r"https://([A-Za-z0-9.-]+\.[a-z]+)/", script))

    assert hosts <= HOSTS
    for step in document(distribution)["runcmd"]:
        if "curl" in step and "github.com" in step:
            assert step.count("sha256sum --check --strict") >= 1
            assert step.index("sha256sum --check") < step.index("install -m 0755")
    assert re.search(r"\|\s*(?:sudo )?(?:ba)?sh\b", script) is None


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_units_are_units_that_start_after_the_cdi_service(distribution: str) -> None:
    units = [f for f in document(distribution)["write_files"] if f["path"].endswith(".service")]

    (unit,) = units
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit["content"])
    assert parser.sections() == ["Unit", "Service", "Install"]
    assert "nvidia-cdi-refresh.service" in parser["Unit"]["After"]
    assert parser["Service"]["ExecStart"].startswith("/usr/local/bin/")
    assert max(len(line) for line in unit["content"].splitlines()) < 300


def test_choices_arrive_where_they_belong() -> None:
    text = printed(
        "--distro", "k3s", "--kubernetes", "v1.33.6", "--driver-branch", "590", "--server",
        "https://10.0.0.1:6443",
    )  # fmt: skip

    assert "nvidia-driver-590-open" in text
    assert "download/v1.33.6%2Bk3s1/" in text
    assert "server: https://10.0.0.1:6443" in text
    assert yaml.safe_load(text)["runcmd"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--distro", "talos"),
        ("--distro", "k3s", "--kubernetes", "v1.34.2; rm -rf /"),
        ("--distro", "k3s", "--server", "https://x:6443\ntoken: a"),
        ("--distro", "k3s", "--driver-branch", "550"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(main, ["node-setup", *arguments]).exit_code == 2

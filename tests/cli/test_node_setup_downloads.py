"""The downloads of the printed cloud-init, run by a shell with stand-ins for what touches a system:
only a file that has its maker's checksum is installed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cli.__main__ import main

#: Serves every file as its own name, and its checksum in the form in which its maker publishes it.
_CURL = r"""#!/bin/sh
for word in "$@"; do case "$word" in https://*) url="$word";; esac; done
name="${url##*/}"
sum() { printf '%s' "$1" | sha256sum | cut -d' ' -f1; }
if [ -n "$TAMPERED" ]; then body="tampered"; else body="$name"; fi
echo "$url" >> "$LOG"
case "$url" in
  *sha256sum-*) for each in k3s k3s-arm64; do echo "$(sum $each)  $each"; done > sums;;
  *.tgz.sha256) echo "$(sum "${name%.sha256}")  ${name%.sha256}";;
  *.sha256) sum "${name%.sha256}";;
  *) printf '%s' "$body" > "$name";;
esac
"""
#: Installs nothing; its arguments are kept.
_RECORD = '#!/bin/sh\necho "$(basename "$0") $*" >> "$LOG"\n'


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    texts = dict.fromkeys(("install", "tar", "mkdir", "systemctl"), _RECORD)
    for name, text in {**texts, "curl": _CURL, "dpkg": "#!/bin/sh\necho $ARCH\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def downloads(distribution: str) -> str:
    """The part of the step that fetches, from its first line to the removal of its folder."""
    output = CliRunner().invoke(main, ["node-setup", "--distro", distribution]).output
    steps: list[str] = yaml.safe_load(output)["runcmd"]
    (step,) = (each for each in steps if "sha256sum --check" in each)
    begin, end = step.index("arch="), step.index('rm -r "$work"\n') + len('rm -r "$work"\n')
    return "set -eu\n" + step[begin:end]


def run(script: str, stand_ins: Path, **variables: str) -> tuple[int, list[str]]:
    log = stand_ins.parent / "log"
    log.write_text("")
    environment = {
        "PATH": f"{stand_ins}:/usr/bin:/bin",
        "LOG": str(log),
        "TMPDIR": str(stand_ins.parent),
        "ARCH": "amd64",
        **variables,
    }
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, check=False)
    return done.returncode, log.read_text().splitlines()


@pytest.mark.parametrize(("arch", "asset"), [("amd64", "k3s"), ("arm64", "k3s-arm64")])
def test_k3s_is_installed_when_its_checksum_fits(arch: str, asset: str, stand_ins: Path) -> None:
    status, log = run(downloads("k3s"), stand_ins, ARCH=arch)

    assert status == 0
    assert log[-1] == f"install -m 0755 {asset} /usr/local/bin/k3s"
    assert log[1].endswith(f"/sha256sum-{arch}.txt")


def test_kubeadm_and_the_network_plugins_are_installed(stand_ins: Path) -> None:
    status, log = run(downloads("kubeadm"), stand_ins)

    assert status == 0
    installed = [line.rpartition("/")[2] for line in log if line.startswith("install ")]
    assert installed == ["kubeadm", "kubelet", "kubectl"]
    assert log[-1].startswith("tar -C /opt/cni/bin -xzf cni-plugins-linux-amd64-")


@pytest.mark.parametrize("distribution", ["k3s", "kubeadm"])
def test_nothing_is_installed_that_is_not_its_makers(distribution: str, stand_ins: Path) -> None:
    status, log = run(downloads(distribution), stand_ins, TAMPERED="1")

    assert status != 0
    assert [line for line in log if line.startswith(("install", "tar"))] == []

"""What the doctor takes for containerd's effective configuration is what containerd says it is."""

from __future__ import annotations

import itertools
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from doctor.checks.catalogue import CHECKS
from doctor.facts.facts import Facts
from doctor.facts.host import Host, PciGpu
from doctor.facts.runtime import Runtime
from doctor.gather.containerd import read_containerd
from doctor.gather.places import Places
from doctor.gather.tree import Tree
from localcluster.parts.catalogue import architecture, catalogue
from localcluster.parts.installed import find
from localcluster.settings import default_settings

_PART = "containerd"
_OLD, _NEW = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"


@pytest.fixture(scope="module")
def containerd() -> Path:
    found = find(catalogue(architecture())[_PART], default_settings())
    if found is None:
        pytest.skip("not on this machine: containerd; run `python -m localcluster parts`")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A configuration file: its version and where its runtimes are; None is left out."""

    version: int | None = None
    section: str | None = None
    binary: str = "/usr/bin/nvidia-container-runtime"

    def write(self, path: Path, *, imports: str | None = None) -> None:
        lines = [f"version = {self.version}"] if self.version else []
        lines += [f'imports = ["{imports}"]'] if imports else []
        if self.section:
            lines += [
                f"[plugins.'{self.section}'.containerd]",
                "default_runtime_name = 'nvidia'",
                f"[plugins.'{self.section}'.containerd.runtimes.nvidia]",
                "runtime_type = 'io.containerd.runc.v2'",
                f"[plugins.'{self.section}'.containerd.runtimes.nvidia.options]",
                f"BinaryName = '{self.binary}'",
                "SystemdCgroup = true",
            ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def told_by_containerd(program: Path, config: Path) -> dict[str, Any]:
    command = [str(program), "--config", str(config), "config", "dump"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    runtime: dict[str, Any] = tomllib.loads(done.stdout.decode())["plugins"][_NEW]
    return runtime


def told_by_doctor(config: Path) -> Runtime:
    places = Places(marks=(), config=str(config))
    return read_containerd(Tree(Path("/")), places, version=(2, 1, 5), search_path=())


def compare(program: Path, config: Path) -> None:
    theirs, ours = told_by_containerd(program, config), told_by_doctor(config)
    runtimes = theirs["containerd"]["runtimes"]

    assert ("nvidia" in ours.handlers) == ("nvidia" in runtimes)
    if "nvidia" in runtimes:
        options = runtimes["nvidia"]["options"]
        assert ours.handlers["nvidia"].binary == options["BinaryName"]
        assert ours.handlers["nvidia"].systemd_cgroup is options["SystemdCgroup"]
    else:
        assert not ours.nvidia()
    assert (ours.default or "runc") == theirs["containerd"]["default_runtime_name"]


SHAPES = [
    Text(version=version, section=section)
    for version, section in itertools.product((None, 2, 3), (None, _OLD, _NEW))
]


@pytest.mark.parametrize("main", SHAPES, ids=lambda each: f"{each.version}-{each.section}")
def test_one_file(containerd: Path, tmp_path: Path, main: Text) -> None:
    main.write(tmp_path / "config.toml")

    compare(containerd, tmp_path / "config.toml")


@pytest.mark.parametrize("version", [None, 2, 3])
@pytest.mark.parametrize("drop_in", SHAPES, ids=lambda each: f"{each.version}-{each.section}")
def test_a_file_and_its_drop_in(
    containerd: Path, tmp_path: Path, version: int | None, drop_in: Text
) -> None:
    drop_in.write(tmp_path / "conf.d/99-nvidia.toml")
    Text(version=version).write(tmp_path / "config.toml", imports=f"{tmp_path}/conf.d/*.toml")

    compare(containerd, tmp_path / "config.toml")


@pytest.mark.parametrize("pattern", ["conf.d/*.toml", "*/99-nvidia.toml", "conf.d/99-*", "none/*"])
def test_patterns_of_imports(containerd: Path, tmp_path: Path, pattern: str) -> None:
    Text(version=3, section=_NEW).write(tmp_path / "conf.d/99-nvidia.toml")
    Text(version=3).write(tmp_path / "config.toml", imports=pattern)

    compare(containerd, tmp_path / "config.toml")


def test_a_drop_in_beats_the_file_that_imports_it(containerd: Path, tmp_path: Path) -> None:
    Text(version=2, section=_OLD, binary="/drop-in").write(tmp_path / "conf.d/a.toml")
    main = Text(version=2, section=_OLD, binary="/main")
    main.write(tmp_path / "config.toml", imports=f"{tmp_path}/conf.d/*.toml")

    compare(containerd, tmp_path / "config.toml")


@pytest.mark.parametrize("version", [None, 3])
def test_the_command_that_mends_a_misplaced_section(
    containerd: Path, tmp_path: Path, version: int | None
) -> None:
    config = tmp_path / "config.toml"
    Text(version=version, section=_OLD).write(config)
    runtime = told_by_doctor(config)
    assert not runtime.nvidia()
    facts = Facts(host=Host(was_read=True, gpus=(PciGpu(bdf="a", device=1),), runtime=runtime))
    (check,) = (check for check in CHECKS if check.id == "containerd-sections")

    command = check.look(facts).mend[0]
    subprocess.run(["sh", "-c", command.removeprefix("sudo ")], check=True)

    assert "nvidia" in told_by_containerd(containerd, config)["containerd"]["runtimes"]
    assert told_by_doctor(config).nvidia()

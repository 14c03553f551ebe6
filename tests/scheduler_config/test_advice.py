"""What is told beside the configuration, for every flavor."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml

from scheduling.advice import Outcome, advice, heading
from scheduling.flavors import FILE, FLAVORS, Flavor

EXPIRES = datetime(2027, 3, 1, tzinfo=UTC)
OWN = [flavor for flavor in FLAVORS.values() if flavor.takes_files]


@pytest.mark.parametrize("flavor", OWN, ids=lambda flavor: flavor.name)
@pytest.mark.parametrize("written", ["", "/root/gpudetour"])
def test_it_says_where_the_file_goes_and_what_restarts(flavor: Flavor, written: str) -> None:
    outcome = Outcome(flavor=flavor, folder=flavor.folder, written=written, expires=EXPIRES)
    told = "\n".join(advice(outcome))

    assert f"{flavor.folder}/{FILE}" in told
    assert "restart" in told
    assert "2027-03-01" in told
    assert ("read anew without a restart" in told) == bool(written)


def test_files_that_are_in_place_are_not_copied() -> None:
    flavor = FLAVORS["k3s"]
    outcome = Outcome(flavor=flavor, folder=flavor.folder, written=flavor.folder)

    assert not any("install" in line for line in advice(outcome))


@pytest.mark.parametrize("name", ["k3s", "rke2"])
def test_the_lines_for_rancher_are_yaml_that_names_the_file(name: str) -> None:
    flavor = FLAVORS[name]
    lines = advice(Outcome(flavor=flavor, folder=flavor.folder))
    start = next(i for i, line in enumerate(lines) if line.strip() == "kube-scheduler-arg:")
    end = next(i for i, line in enumerate(lines) if "systemctl" in line)

    config = yaml.safe_load("\n".join(line[2:] for line in lines[start:end]))

    assert config["kube-scheduler-arg"] == [f"config={flavor.folder}/{FILE}"]
    # RKE2 runs it as a pod, which sees the folder only where it is mounted.
    mounts = config.get("kube-scheduler-extra-mount", [])
    assert mounts == ([] if name == "k3s" else [f"{flavor.folder}:{flavor.folder}:ro"])


def test_the_lines_for_kubeadm_are_its_own_configuration() -> None:
    flavor = FLAVORS["kubeadm"]
    lines = advice(Outcome(flavor=flavor, folder=flavor.folder))
    start = next(i for i, line in enumerate(lines) if line.strip() == "scheduler:")
    end = next(i for i, line in enumerate(lines) if line.strip().startswith("Then on each"))

    scheduler = yaml.safe_load("\n".join(line[2:] for line in lines[start:end]))["scheduler"]

    assert scheduler["extraArgs"] == [{"name": "config", "value": f"{flavor.folder}/{FILE}"}]
    (volume,) = scheduler["extraVolumes"]
    assert volume["hostPath"] == volume["mountPath"] == flavor.folder
    assert volume["readOnly"] is True


def test_remarks_come_first() -> None:
    outcome = Outcome(flavor=FLAVORS["k3s"], folder="/x", remarks=("mind the gap",))

    assert advice(outcome)[0] == "Note: mind the gap."


def test_a_configuration_that_holds_a_key_says_so() -> None:
    flavor = FLAVORS["talos"]

    assert any("private key" in line for line in heading(Outcome(flavor=flavor, folder="")))

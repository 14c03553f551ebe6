"""NVIDIA's configuration file: what is honoured, what changes nothing, and what is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpus.model import GPU_RESOURCE, ResourceName
from nodeagent.deviceplugin.allocation import DeviceList
from nodeagent.deviceplugin.configfile import (
    ConfigFileError,
    PluginConfig,
    load_config,
    read_config,
)
from nodeagent.deviceplugin.devices import MigStrategy, Offering, Slicing

#: As in the README of NVIDIA's plugin, with its defaults.
README = """
version: v1
flags:
  migStrategy: "none"
  failOnInitError: true
  nvidiaDriverRoot: "/"
  plugin:
    passDeviceSpecs: false
    deviceListStrategy: "envvar"
    deviceIDStrategy: "uuid"
"""
SLICED = """
version: v1
sharing:
  timeSlicing:
    renameByDefault: {rename}
    failRequestsGreaterThanOne: {one}
    resources:
    - name: nvidia.com/gpu
      replicas: 10
"""


def test_the_example_of_its_readme() -> None:
    config = read_config(README)
    assert config.offering == Offering(mig=MigStrategy.NONE)
    assert (config.device_list, config.driver_root) == (DeviceList.ENV, "/")
    assert config.no_effect == ("flags.failOnInitError",)


@pytest.mark.parametrize("rename", [True, False])
@pytest.mark.parametrize("one", [True, False])
def test_time_slicing(rename: bool, one: bool) -> None:
    config = read_config(SLICED.format(rename=str(rename).lower(), one=str(one).lower()))
    shown_as = ResourceName("nvidia.com/gpu.shared") if rename else GPU_RESOURCE
    expected = Slicing(replicas=10, shown_as=shown_as, one_at_a_time=one)
    assert config.offering.slicing == {GPU_RESOURCE: expected}


def test_everything_that_is_honoured_at_once_and_in_json() -> None:
    document = {
        "version": "v1",
        "flags": {
            "migStrategy": "mixed",
            "gdsEnabled": False,
            "mofedEnabled": None,
            "deviceDiscoveryStrategy": "nvml",
            "nvidiaDevRoot": "/dev/root",
            "plugin": {
                "passDeviceSpecs": True,
                "deviceListStrategy": ["envvar", "cdi-cri"],
                "sharedDevicesAllocationPolicy": "packed",
                "containerDriverRoot": "/driver-root",
            },
            "gfd": {"oneshot": False, "sleepInterval": "60s", "outputFile": "/x"},
        },
        "resources": {
            "gpus": [{"pattern": "*", "name": "nvidia.com/gpu"}],
            "mig": [
                {"pattern": "1g.5gb", "name": "mig-1g.5gb"},
                {"pattern": "1g.5gb+me", "name": "nvidia.com/mig-1g.5gb.me"},
            ],
        },
        "sharing": {
            "timeSlicing": {
                "resources": [
                    {"name": "gpu", "replicas": 2, "rename": "gpu.shared", "devices": "all"},
                    {"name": "nvidia.com/mig-1g.5gb", "replicas": 3},
                ]
            },
            "mps": None,
        },
        "imex": {"channelIDs": [], "required": False},
    }
    config = read_config(json.dumps(document))
    assert config == PluginConfig(
        offering=Offering(
            mig=MigStrategy.MIXED,
            packed=True,
            slicing={
                GPU_RESOURCE: Slicing(replicas=2, shown_as=ResourceName("nvidia.com/gpu.shared")),
                ResourceName("nvidia.com/mig-1g.5gb"): Slicing(
                    replicas=3, shown_as=ResourceName("nvidia.com/mig-1g.5gb")
                ),
            },
        ),
        device_list=None,
        pass_device_nodes=True,
        dev_root="/dev/root",
        no_effect=(
            "flags.plugin.containerDriverRoot",
            "flags.gfd.oneshot",
            "flags.gfd.sleepInterval",
            "flags.gfd.outputFile",
        ),
    )


def test_what_its_log_prints_can_be_fed_back() -> None:
    assert read_config('{"version":"v1","sharing":{"timeSlicing":{}}}') == read_config(
        "version: v1"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no settings"),
        ("- v1", "no settings"),
        ("a: [", "neither YAML nor JSON"),
        ("flags: {}", "version: it is missing"),
        ("version: v2", "version: 'v2' is not allowed; write v1"),
        ("flags: {migStrategy: all}", "write none or single or mixed"),
        ("flags: {migstrategy: none}", "flags.migstrategy: it is not a setting"),
        ("flags: none", "flags: it is not a setting"),
        ("flags: {failOnInitError: 'yes'}", "flags.failOnInitError: 'yes' is not allowed"),
        ("flags: {gdsEnabled: true}", "GPUDirect"),
        ("flags: {useNodeFeatureAPI: true}", "labels are written on the Node"),
        ("flags: {deviceDiscoveryStrategy: tegra}", "write auto or nvml"),
        ("flags: {nvidiaDriverRoot: driver}", "not an absolute path"),
        ("flags: {plugin: {deviceListStrategy: volume-mounts}}", "write envvar or cdi-cri"),
        ("flags: {plugin: {deviceListStrategy: []}}", "no list of strategies"),
        ("flags: {plugin: {deviceListStrategy: [envvar, 3]}}", "3 is not served here"),
        ("flags: {plugin: {deviceIDStrategy: index}}", "devices are told by UUID"),
        (
            "resources: {gpus: [{pattern: T4, name: nvidia.com/t4}]}",
            "renamed, here to 'nvidia.com/t4'",
        ),
        ("resources: {gpus: [{pattern: '*', name: nvidia.com/gpu-x}]}", "cannot be renamed"),
        ("resources: {mig: [{pattern: 1g.5gb, name: mig-small}]}", "cannot be renamed"),
        ("resources: {mig: [{pattern: 1g.5gb, name: mig-2g.10gb}]}", "cannot be renamed"),
        ("resources: {mig: 3}", "no list of patterns"),
        ("sharing: {mps: {resources: [{name: gpu, replicas: 2}]}}", "MPS is not served"),
        ("imex: {channelIDs: [0]}", "IMEX"),
        ("imex: {required: true}", "IMEX"),
        ("sharing: {timeSlicing: {resources: {}}}", "no list of resources"),
        ("sharing: {timeSlicing: {resources: [{replicas: 2}]}}", "has no name"),
        ("sharing: {timeSlicing: {resources: [{name: cpu, replicas: 2}]}}", "nvidia.com/cpu is no"),
        ("sharing: {timeSlicing: {resources: [{name: gpu}]}}", "replicas must be a number"),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: true}]}}", "must be a number"),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 1}]}}", "must be 2 to 4096"),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 99999999}]}}", "2 to 4096"),
        (
            "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, devices: 1}]}}",
            "all devices",
        ),
        (
            "sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, rename: x}]}}",
            "renamed to",
        ),
        ("sharing: {timeSlicing: {resources: [{name: gpu, replicas: 2, of: 3}]}}", "of is not a"),
        (
            "sharing: {timeSlicing: {resources: "
            "[{name: gpu, replicas: 2}, {name: nvidia.com/gpu, replicas: 3}]}}",
            "named twice",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_reason(text: str, complaint: str) -> None:
    whole = text if "version" in text or not text.strip("[- v1a:") else f"version: v1\n{text}"
    with pytest.raises(ConfigFileError) as caught:
        read_config(text if text.startswith("flags: {}") else whole)
    assert complaint in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigFileError) as caught:
        read_config("flags: {migStrategy: x, gdsEnabled: true, y: 1}")
    assert str(caught.value).count(";") >= 3


def test_aliases_within_aliases_stay_small() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 20))
    with pytest.raises(ConfigFileError) as caught:
        read_config(f"version: v1\nl0: &l0 [x]\n{levels}\nflags: {{migStrategy: *l19}}\n")
    assert len(str(caught.value)) < 4000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_SECTIONS = st.sampled_from(
    ["flags", "flags.plugin", "flags.gfd", "resources", "sharing.timeSlicing", "sharing", "imex"]
)
_KEYS = st.sampled_from(
    [
        "migStrategy", "deviceListStrategy", "sharedDevicesAllocationPolicy", "resources", "gpus",
        "mig", "mps", "channelIDs", "required", "renameByDefault", "oneshot", "nvidiaDriverRoot",
    ]
)  # fmt: skip


@given(_SECTIONS, st.dictionaries(_KEYS, _VALUES))
def test_any_value_is_taken_or_refused_in_words(section: str, values: dict[str, Any]) -> None:
    document: Any = values
    for step in reversed(section.split(".")):
        document = {step: document}
    with suppress(ConfigFileError):
        assert isinstance(read_config(yaml.safe_dump({"version": "v1", **document})), PluginConfig)


@given(st.binary())
def test_any_bytes_are_no_accident(text: bytes) -> None:
    with pytest.raises(ConfigFileError):
        read_config(text)


def test_a_file_is_named_in_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("version: v2")
    for path, complaint in (
        (file, "config.yaml: version"),
        (tmp_path / "none", "none: No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(ConfigFileError, match=complaint):
            load_config(path)
    file.write_text(f"version: v1 # {'x' * (1 << 20)}")
    with pytest.raises(ConfigFileError, match="larger than"):
        load_config(file)

"""Whatever is in files, logs or objects of a cluster: the doctor ends with a report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doctor import plugin_config
from doctor.affinity import Selection, mismatch, untolerated
from doctor.checks.catalogue import CHECKS
from doctor.diagnosis import diagnose
from doctor.facts.facts import Facts, version_of
from doctor.gather.plugin import config_maps, decode_plugin, is_plugin, selector
from doctor.report import as_json, as_text
from kube.objects import Taint
from tests.doctor.nodes import HEALTHY, NodeTree

#: Values that are nearly right, and values that are not at all.
_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["nvidia", "nvidia.com/gpu", "/", "..", "v1", "\0", "runc", "cdi", "0"]),
)
_JSON = st.recursive(
    _ODD,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
_BYTES = st.one_of(
    st.binary(max_size=200),
    st.just(b""),
    st.just(b"\xff" * 64),
    st.just(b"[" * 5000),
    st.just(b"a: &a [*a, *a]"),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", errors="surrogatepass")),
    _JSON.map(lambda value: json.dumps(value).encode()),
)


@pytest.fixture(scope="module")
def templates() -> Any:
    """Healthy trees, to be copied."""
    with tempfile.TemporaryDirectory(prefix="gd-doctor") as name:
        yield {each: build(Path(name) / each) for each, build in HEALTHY.items()}


def files_of(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() or path.is_symlink()
    )


def report(node: NodeTree) -> str:
    diagnosis = node.diagnosis()
    told = json.loads(as_json(diagnosis))
    assert told["broken"] is diagnosis.is_broken
    return as_text(diagnosis, verbose=True)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_garbage_in_any_file_of_a_node(templates: dict[str, NodeTree], data: st.DataObject) -> None:
    original = templates[data.draw(st.sampled_from(sorted(templates)))]
    with tempfile.TemporaryDirectory(prefix="gd-doctor") as name:
        root = Path(name) / "root"
        shutil.copytree(original.root, root, symlinks=True)
        for path in data.draw(st.lists(st.sampled_from(files_of(root)), min_size=1, max_size=4)):
            (root / path).unlink(missing_ok=True)
            (root / path).write_bytes(data.draw(_BYTES))
        node = NodeTree(root)
        node.nvml = original.nvml

        assert report(node)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_garbage_in_the_shape_of_a_configuration(
    templates: dict[str, NodeTree], data: st.DataObject
) -> None:
    """Right keys with values of any type: TOML and YAML that are valid and mean nothing."""
    paths = (
        "etc/containerd/config.toml",
        "etc/containerd/conf.d/99-nvidia.toml",
        "etc/nvidia-container-runtime/config.toml",
    )
    values = ("1", "true", '"x"', "[1, 'a']", "{a = 1}", "[[]]", "1979-05-27", "nan", '"\\u0000"')
    keys = (
        "version",
        "imports",
        "disabled_plugins",
        "plugins",
        "plugins.'io.containerd.grpc.v1.cri'.containerd",
        "plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.nvidia.options.BinaryName",
        "plugins.'io.containerd.grpc.v1.cri'.containerd.default_runtime_name",
        "plugins.'io.containerd.grpc.v1.cri'.cdi_spec_dirs",
        "nvidia-container-runtime.runtimes",
        "nvidia-container-runtime.mode",
        "nvidia-container-cli.root",
        "nvidia-container-cli.ldconfig",
        "swarm-resource",
        "features",
    )
    lines = data.draw(st.dictionaries(st.sampled_from(keys), st.sampled_from(values), max_size=5))
    with tempfile.TemporaryDirectory(prefix="gd-doctor") as name:
        root = Path(name) / "root"
        shutil.copytree(templates["kubeadm"].root, root, symlinks=True)
        text = "\n".join(f"{key} = {value}" for key, value in lines.items())
        (root / data.draw(st.sampled_from(paths))).write_text(text)

        assert report(NodeTree(root))


@given(log=st.text(max_size=400) | st.sampled_from(["\0", "invalid strategy: ", "GLIBC_PRIVATE"]))
def test_garbage_in_a_log(log: str) -> None:
    assert as_text(diagnose(Facts(plugin_log=log), CHECKS), verbose=True)


_CONTAINER = st.fixed_dictionaries(
    {"image": st.just("nvcr.io/nvidia/k8s-device-plugin:v0.17.4")},
    optional=dict.fromkeys(
        ("args", "command", "env", "volumeMounts", "securityContext", "name"), _JSON
    ),
)
_POD_SPEC = st.fixed_dictionaries(
    {"containers": st.lists(_CONTAINER | _JSON, max_size=3)},
    optional=dict.fromkeys(
        ("volumes", "affinity", "nodeSelector", "tolerations", "runtimeClassName"), _JSON
    ),
)
_DAEMONSET = st.fixed_dictionaries(
    {"spec": st.fixed_dictionaries({"template": st.fixed_dictionaries({"spec": _POD_SPEC})})},
    optional={"metadata": _JSON, "status": _JSON},
)


@settings(deadline=None)
@given(daemonset=_DAEMONSET | st.dictionaries(st.text(max_size=8), _JSON))
def test_garbage_in_a_daemonset(daemonset: dict[str, Any]) -> None:
    is_plugin(daemonset)
    config_maps(daemonset)
    assert isinstance(selector(daemonset), str)
    plugin = decode_plugin(
        daemonset, labels={}, taints=(Taint(key="a", effect="NoSchedule"),), node="n"
    )
    assert isinstance(plugin.name, str)


@given(document=st.text(max_size=200) | _JSON.map(json.dumps))
def test_garbage_in_a_plugins_config(document: str) -> None:
    assert all(isinstance(fault, str) for fault in plugin_config.faults(document))
    assert all(isinstance(word, str) for word in plugin_config.list_strategies(document))


@given(spec=st.dictionaries(st.sampled_from(["affinity", "nodeSelector"]), _JSON), taints=_JSON)
def test_garbage_in_rules_about_nodes(spec: dict[str, Any], taints: Any) -> None:
    assert isinstance(mismatch(Selection.of(spec), {"a": "b"}, node="n"), str)
    tolerations = [taints] if isinstance(taints, dict) else []
    assert isinstance(untolerated(tolerations, [Taint(key="a", effect="NoSchedule")]), str)


@given(text=st.text(max_size=30))
def test_any_text_for_a_version(text: str) -> None:
    assert all(number >= 0 for number in version_of(text))


def test_a_folder_a_pipe_and_a_loop_in_place_of_files(tmp_path: Path) -> None:
    node = HEALTHY["kubeadm"](tmp_path)
    node.remove("etc/containerd/config.toml", "etc/cdi/nvidia.yaml", "proc/modules")
    node.folder("etc/containerd/config.toml")
    os.mkfifo(tmp_path / "etc/cdi/nvidia.yaml")
    node.link("proc/modules", "/proc/modules")

    assert "containerd" in report(node)


def test_a_log_may_not_command_the_terminal() -> None:
    log = "\x1b[2J invalid strategy: cdi \x1b]0;owned\x07\n"

    told = as_text(diagnose(Facts(plugin_log=log), CHECKS), verbose=True)

    assert "invalid strategy: cdi" in told
    assert "\x1b" not in told
    assert "\x07" not in told

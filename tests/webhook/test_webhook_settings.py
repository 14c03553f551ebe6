"""Names and defaults of the webhook's options are a promise to whoever writes manifests."""

from __future__ import annotations

import click
import pytest

from service.command import ENV_PREFIX
from webhook.__main__ import main

DEFAULTS = {
    "--host": "0.0.0.0",  # noqa: S104 - the default of a pod
    "--port": 8443,
    "--tls-dir": "/etc/gpudetour/tls",
    "--client-ca-file": None,
    "--side-host": "0.0.0.0",  # noqa: S104
    "--side-port": 8080,
    "--threads": 16,
    "--drain": 5.0,
    "--kubeconfig": None,
    "--runtime-class": "nvidia",
    "--node-selector": "gpudetour.io/gpu=true",
    "--toleration-key": "nvidia.com/gpu",
    "--scheduler-name": "",
    "--close-others": False,
    "--canary-interval": 60.0,
    "--canary-namespace": "gpudetour-canary",
    "--deployment": "gpudetour-system/gpudetour-webhook",
    "--log-level": "info",
    "--log-format": "json",
}


def test_names_and_defaults_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in DEFAULTS:
        monkeypatch.delenv(variable(option), raising=False)
    context = main.make_context("webhook", [])

    assert {
        parameter.opts[0]: context.params[parameter.name or ""]
        for parameter in main.params
        if isinstance(parameter, click.Option)
    } == DEFAULTS


def test_flags_win_over_the_environment_and_that_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable("--runtime-class"), "from-environment")
    monkeypatch.setenv(variable("--side-port"), "1")
    context = main.make_context("webhook", ["--side-port", "2"])

    assert context.params["runtime_class"] == "from-environment"
    assert context.params["side_port"] == 2


def variable(option: str) -> str:
    return f"{ENV_PREFIX}_{option.removeprefix('--').replace('-', '_').upper()}"

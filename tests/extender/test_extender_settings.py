"""Names and defaults of the extender's options are a promise to whoever writes manifests."""

from __future__ import annotations

from typing import Any

import click
import pytest

from extender.__main__ import main
from extender.settings import Settings
from service.command import ENV_PREFIX

DEFAULTS: dict[str, Any] = {
    "--host": "0.0.0.0",  # noqa: S104 - the default of a pod
    "--port": 8443,
    "--tls-dir": "/etc/gpudetour/tls",
    "--client-ca-file": None,
    "--client-name": "gpudetour-scheduler",
    "--side-host": "0.0.0.0",  # noqa: S104
    "--side-port": 8080,
    "--threads": 16,
    "--drain": 0.0,
    "--kubeconfig": None,
    "--api-timeout": 10.0,
    "--namespace": "gpudetour-system",
    "--lease": "gpudetour-extender",
    "--lease-mode": "elect",
    "--lease-duration": 15.0,
    "--renew-deadline": 10.0,
    "--lease-retry": 1.0,
    "--fence": "require",
    "--shortlist": 1,
    "--policy": "binpack",
    "--hold": 5.0,
    "--catch-up": 0.1,
    "--binds-ahead": 4,
    "--preemption": "off",
    "--stuck-after": 5.0,
    "--usage-every": 300.0,
    "--page": False,
    "--log-level": "info",
    "--log-format": "json",
}


def settings(*flags: str) -> Settings:
    return Settings(**main.make_context("extender", list(flags)).params)


def variable(option: str) -> str:
    return f"{ENV_PREFIX}_{option.removeprefix('--').replace('-', '_').upper()}"


def test_names_and_defaults_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in DEFAULTS:
        monkeypatch.delenv(variable(option), raising=False)
    context = main.make_context("extender", [])

    assert {
        parameter.opts[0]: context.params[parameter.name or ""]
        for parameter in main.params
        if isinstance(parameter, click.Option)
    } == DEFAULTS


def test_flags_win_over_the_environment_and_that_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable("--policy"), "spread")
    monkeypatch.setenv(variable("--shortlist"), "1")

    found = settings("--shortlist", "2")

    assert (found.policy, found.shortlist) == ("spread", 2)


def test_clients_are_trusted_by_the_ca_beside_the_certificate() -> None:
    assert settings("--tls-dir=/x").server().client_ca_file == "/x/ca.crt"
    assert settings("--client-ca-file=/y").server().client_ca_file == "/y"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--shortlist=-1"], "--shortlist"),
        (["--hold=-1"], "--hold"),
        (["--catch-up=2"], "--catch-up"),
        (["--binds-ahead=0"], "--binds-ahead"),
        (["--stuck-after=1"], "--stuck-after"),
        (["--client-name="], "--client-name"),
        (["--lease-duration=10"], "--lease-duration"),
        (["--lease-retry=0"], "--lease-retry"),
    ],
)
def test_settings_that_make_no_sense_are_refused(flags: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        settings(*flags)


@pytest.mark.parametrize("flag", ["--fence=maybe", "--policy=random", "--port=x"])
def test_values_that_are_not_known_are_refused(flag: str) -> None:
    with pytest.raises(click.BadParameter):
        settings(flag)


def test_bind_counts_as_stuck_only_after_the_time_of_its_calls() -> None:
    assert settings("--stuck-after=3", "--api-timeout=2").limits() == {
        "filter": 3,
        "prioritize": 3,
        "preempt": 3,
        "bind": 3 + 2 * 12 * 2,
    }


@pytest.mark.parametrize(("threads", "binds"), [(1, 1), (4, 3), (16, 12)])
def test_binds_leave_threads_to_the_other_verbs(threads: int, binds: int) -> None:
    assert settings(f"--threads={threads}").binds() == binds

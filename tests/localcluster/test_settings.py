"""Which folders are used, by the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.settings import Settings, settings_from


def test_without_variables_the_home_folder_is_used() -> None:
    settings = settings_from({"HOME": "/home/ada"})

    assert settings.cache == Path("/home/ada/.cache/gpudetour")
    assert settings.state == Path("/home/ada/.local/state/gpudetour/localcluster")
    assert settings.parts_folder is None


def test_the_xdg_folders_are_respected() -> None:
    settings = settings_from(
        {"HOME": "/home/ada", "XDG_CACHE_HOME": "/fast", "XDG_STATE_HOME": "/big"}
    )

    assert settings.cache == Path("/fast/gpudetour")
    assert settings.state == Path("/big/gpudetour/localcluster")


def test_a_relative_xdg_folder_is_ignored_as_its_specification_says() -> None:
    settings = settings_from({"HOME": "/home/ada", "XDG_CACHE_HOME": "cache"})

    assert settings.cache == Path("/home/ada/.cache/gpudetour")


def test_the_own_cache_variable_wins_over_xdg() -> None:
    settings = settings_from(
        {"HOME": "/home/ada", "XDG_CACHE_HOME": "/fast", "GPUDETOUR_CACHE": "/mine"}
    )

    assert settings.cache == Path("/mine")


def test_a_folder_of_programs_can_be_named() -> None:
    settings = settings_from({"HOME": "/home/ada", "KUBEBUILDER_ASSETS": "/opt/assets"})

    assert settings.parts_folder == Path("/opt/assets")


def test_relative_folders_are_refused() -> None:
    with pytest.raises(ValueError, match="relative"):
        Settings(cache=Path("cache"), state=Path("/state"))

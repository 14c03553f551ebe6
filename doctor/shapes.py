"""Values of unknown shape, taken for what was expected or for empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """Return those members of a list that are mappings."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def texts(value: Any) -> list[str]:
    """Return those members of a list that are texts."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return a text as it is, anything else as an empty one."""
    return value if isinstance(value, str) else ""

"""The text of the small Go module from which programs of a published module are built. Pure.

A module that is built as a dependency loses its own `replace` lines, so those that matter are
repeated here.
"""

from __future__ import annotations

from typing import TypedDict

from localcluster.parts.catalogue import Source

_UNVERSIONED = "v0.0.0"


class _Versioned(TypedDict, total=False):
    Path: str
    Version: str


class _Replace(TypedDict):
    Old: _Versioned
    New: _Versioned


class GoMod(TypedDict, total=False):
    """What `go mod edit -json` prints, as far as it is needed."""

    Go: str
    Require: list[_Versioned] | None
    Replace: list[_Replace] | None


def replacements(manifest: GoMod, *, staging: str | None) -> dict[str, str]:
    """Module path to `path version` for each `replace` line that a dependent module must repeat.

    A local path exists only in the project's own tree. Where the project requires no real version
    for it (`v0.0.0`, the staging modules of Kubernetes), `staging` is that version; otherwise the
    required version is published and needs no line.
    """
    required = {entry["Path"]: entry.get("Version", "") for entry in manifest.get("Require") or ()}
    lines: dict[str, str] = {}
    for entry in manifest.get("Replace") or ():
        old, new = entry["Old"]["Path"], entry["New"]
        version = new.get("Version")
        if version:
            lines[old] = f"{new['Path']} {version}"
        elif staging and required.get(old) == _UNVERSIONED:
            lines[old] = f"{old} {staging}"
    return lines


def module_text(source: Source, manifest: GoMod) -> str:
    """The go.mod that requires `source` and builds it with the versions that it names itself."""
    lines = [
        "module localcluster.invalid/build",
        "",
        f"go {manifest.get('Go', '1.24')}",
        "",
        f"require {source.module} {source.version}",
    ]
    replaced = replacements(manifest, staging=source.staging)
    lines += [f"replace {old} => {new}" for old, new in sorted(replaced.items())]
    return "\n".join(lines) + "\n"

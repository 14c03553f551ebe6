"""The command `python -m release`: makes the image, or all files of a release."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from image.build import Image
from image.faults import FAULTS
from localcluster.image.product import make_image
from localcluster.parts.obtain import PartsUnavailable, ensure
from localcluster.parts.progress import progress_on
from localcluster.rendering import PART
from localcluster.settings import default_settings
from localcluster.shipped import ManifestError
from release.changelog import ChangelogError
from release.dist import write_release
from release.imagefiles import write_image


class _Commands(click.Group):
    """Turns known faults into a message and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except (*FAULTS, ChangelogError, ManifestError, PartsUnavailable) as error:
            raise click.ClickException(str(error)) from error


def _into(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--into",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=True,
        help="Folder for the files.",
    )


_sources = click.option(
    "--sources",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A sources.list for Debian's packages; by default this machine's own mirrors.",
)


@click.group(cls=_Commands)
def main() -> None:
    """Make what is released."""


@main.command()
@_into("build/image")
@_sources
def image(into: Path, sources: Path | None) -> None:
    """Make the container image and its SBOM, without a container engine."""
    for path in write_image(_made(sources), into):
        click.echo(path)


@main.command()
@_into("dist")
@_sources
def dist(into: Path, sources: Path | None) -> None:
    """Make all files of a release: image, SBOM, chart, YAML, alerts, wheel, checksums."""
    helm = ensure([PART], settings=default_settings(), progress=progress_on(sys.stderr))[PART]
    for path in write_release(_made(sources), into, helm=helm):
        click.echo(path)


def _made(sources: Path | None) -> Image:
    text = sources.read_text() if sources else None
    return make_image(default_settings(), progress=progress_on(sys.stderr), sources=text)


if __name__ == "__main__":
    main(prog_name="python -m release")

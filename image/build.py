"""Putting the image together: three layers, which change less often the lower they lie.

Debian, the wheels and our own packages; an upgrade of gpudetour sends the last one only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from image import debian, wheels
from image.bytecode import compiled
from image.configuration import configuration, reference_of
from image.contents import debian_tree, taken, wheels_tree
from image.oci import Layer, archive, layer_of
from image.package import PackageError, read_package
from image.platforms import Processor, this_processor
from image.product import Project, product_tree, read_project
from image.sbom import DebianFile, sbom
from image.tarfiles import tar
from image.tree import File, Tree, merge, with_parents
from image.wheels import Wheel

Report = Callable[[str], None]
KeepLayer = Callable[[str, Callable[[], Layer]], Layer]
"""Gives the layer that was kept under a key, or makes it and may keep it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """All that an image is made of."""

    project: Project
    processor: Processor
    debian: tuple[DebianFile, ...]
    wheels: tuple[Wheel, ...]
    product: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A finished image."""

    project: Project
    processor: Processor
    archive: bytes
    sbom: bytes

    @property
    def file_name(self) -> str:
        """The archive's name, without its suffix."""
        return f"{self.project.name}-{self.project.version}-{self.processor.name}"


def gather(
    checkout: Path, *, cache: Path, sources: str | None = None, report: Report
) -> Ingredients:
    """Download and read all ingredients; `cache` keeps the downloads between calls.

    `sources` as in `debian.download`. Raises `DebianError`, `WheelError`, `PackageError`,
    `ProductError` and `UnknownProcessor`.
    """
    project, processor = read_project(checkout), this_processor()
    found = debian.download(
        debian.wanted_packages(),
        folder=cache / "debian",
        architecture=processor.name,
        sources=sources,
        report=report,
    )
    lock = checkout / "requirements" / "runtime.lock"
    unpacked = wheels.download(lock, folder=cache / "wheels", processor=processor, report=report)
    return Ingredients(
        project=project,
        processor=processor,
        debian=tuple(_read(download) for download in found),
        wheels=taken(unpacked),
        product=product_tree(checkout, project),
    )


def layer_trees(ingredients: Ingredients) -> dict[str, Tree]:
    """What is in each layer, lowest first, but for compiled Python."""
    return {
        "debian": debian_tree(file.package for file in ingredients.debian),
        "wheels": wheels_tree(ingredients.wheels),
        "gpudetour": ingredients.product,
    }


def with_bytecode(tree: Tree, *, system: Tree, processor: Processor) -> Tree:
    """The tree with its modules compiled by the Python in `system`; raises `CompileError`."""
    return with_parents(merge(tree, compiled(tree, system=system, processor=processor)))


def build(
    ingredients: Ingredients,
    *,
    report: Report,
    reference: str | None = None,
    keep: KeepLayer = lambda _key, make: make(),
) -> Image:
    """The image of the ingredients, named by the project where `reference` is None; raises
    `CompileError`.
    """
    project, processor = ingredients.project, ingredients.processor
    plain = layer_trees(ingredients)

    def pack(name: str) -> Layer:
        report(f"packing the layer {name}")
        tree = with_bytecode(plain[name], system=plain["debian"], processor=processor)
        return layer_of(tree, made_of=name)

    layers = [keep(_key(name, plain[name], plain["debian"]), partial(pack, name)) for name in plain]
    named = reference or reference_of(project)
    return Image(
        project=project,
        processor=processor,
        archive=archive(named, layers, configuration(project), architecture=processor.name),
        sbom=sbom(
            project,
            ingredients.debian,
            ingredients.wheels,
            architecture=processor.name,
            reference=named,
        ),
    )


def identity(checkout: Path) -> str:
    """By what an image is known before anything is downloaded: our sources, the lock, this code."""
    lock = (checkout / "requirements" / "runtime.lock").read_text()
    return _key("image", product_tree(checkout, read_project(checkout)), {"": File(lock.encode())})


def _read(download: debian.Download) -> DebianFile:
    try:
        package = read_package(download.path.read_bytes())
    except PackageError as error:
        raise PackageError(f"{download.path}: {error}") from error
    return DebianFile(package=package, sha256=download.sha256)


def _key(name: str, *trees: Tree) -> str:
    """By what a packed layer is known: its files, the Python that compiles them, and this code."""
    digest = hashlib.sha256()
    for tree in trees:
        digest.update(tar(tree))
    for module in sorted(files("image").iterdir(), key=lambda file: file.name):
        if module.name.endswith((".py", ".txt")):
            digest.update(module.read_bytes())
    return f"{name}-{digest.hexdigest()[:32]}"

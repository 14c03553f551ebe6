"""gpudetour's own image for tests and releases: made where it is not in the cache.

What is in it is `image`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from image.build import Image, build, gather, identity
from image.oci import Layer
from localcluster.files import remove_unfinished, write_atomically
from localcluster.parts.locks import exclusive
from localcluster.parts.progress import Progress
from localcluster.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]

_KEPT = 6
"""Files of a kind that stay in the cache; the others are of older sources."""


def product_archive(
    settings: Settings,
    *,
    progress: Progress,
    checkout: Path = CHECKOUT,
    reference: str | None = None,
) -> Path:
    """The archive of the image with the packages of `checkout`, for `ctr images import`.

    One that was made of the same sources is used again, whatever Debian has published since.
    `reference` is the image's name and tag, by default that of the checkout's version. Raises what
    `make_image` raises.
    """
    folder = settings.cache / "images" / "product"
    key = hashlib.sha256(f"{identity(checkout)} {reference}".encode()).hexdigest()[:32]
    archive = folder / f"{key}.tar"
    with _lock(settings, progress):
        if not archive.exists():
            image = _make(settings, progress, checkout=checkout, reference=reference)
            write_atomically(archive, image.archive)
            _prune(folder, "*.tar")
    return archive


def make_image(
    settings: Settings,
    *,
    progress: Progress,
    checkout: Path = CHECKOUT,
    sources: str | None = None,
) -> Image:
    """The image with the newest packages of Debian; layers that did not change are not packed anew.

    `sources` stands for apt's own sources.list. Raises `image.faults.FAULTS`.
    """
    with _lock(settings, progress):
        return _make(settings, progress, checkout=checkout, sources=sources)


def _make(
    settings: Settings,
    progress: Progress,
    *,
    checkout: Path,
    sources: str | None = None,
    reference: str | None = None,
) -> Image:
    kept = settings.cache / "images" / "layers"

    def keep(key: str, make: Callable[[], Layer]) -> Layer:
        return _read_layer(kept / key) or _write_layer(kept / key, make())

    with progress.task("make the container image") as report:
        downloads = settings.cache / "images" / "downloads"
        ingredients = gather(checkout, cache=downloads, sources=sources, report=report)
        image = build(ingredients, reference=reference, keep=keep, report=report)
    _prune(kept, "*.blob")
    return image


def _read_layer(place: Path) -> Layer | None:
    try:
        told = json.loads(place.with_suffix(".json").read_text())
        blob = place.with_suffix(".blob").read_bytes()
    except FileNotFoundError:
        return None
    # So that the newest in use are those that stay.
    place.with_suffix(".blob").touch()
    return Layer(blob=blob, **told)


def _write_layer(place: Path, layer: Layer) -> Layer:
    told = {"content_digest": layer.content_digest, "made_of": layer.made_of}
    write_atomically(place.with_suffix(".json"), json.dumps(told).encode())
    write_atomically(place.with_suffix(".blob"), layer.blob)
    return layer


def _prune(folder: Path, pattern: str) -> None:
    remove_unfinished(folder)
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[_KEPT:]:
        file.unlink()
        file.with_suffix(".json").unlink(missing_ok=True)


def _lock(settings: Settings, progress: Progress) -> AbstractContextManager[None]:
    waiting = "another run is making the container image; waiting for it"
    lock = settings.cache / "images" / "product.lock"
    return exclusive(lock, waiting=lambda: progress.note(waiting))

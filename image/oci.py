"""Images as archives in the OCI image layout, which containerd, registries' tools and Docker read.
Pure: equal input gives equal bytes.

The layout follows the OCI image specification 1.1; `manifest.json` beside it is what older Docker
loads by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from image.tarfiles import compressed, tar
from image.tree import File, Tree

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer, packed."""

    blob: bytes
    """The tar archive by gzip."""
    content_digest: str
    """Of the tar archive itself."""
    made_of: str
    """What `docker history` tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How the image is run."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    folder: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def layer_of(tree: Tree, *, made_of: str) -> Layer:
    """Pack a tree."""
    content = tar(tree)
    return Layer(blob=compressed(content), content_digest=_digest(content), made_of=made_of)


def archive(
    reference: str,
    layers: Sequence[Layer],
    configuration: Configuration,
    *,
    architecture: str,
) -> bytes:
    """The archive of an image; `reference` is its name and tag, by which containerd keeps it."""
    config = _json(_config(layers, configuration, architecture))
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer.blob) for layer in layers],
            **({"annotations": dict(configuration.labels)} if configuration.labels else {}),
        }
    )
    described = {
        **_descriptor(_MANIFEST, manifest),
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
    }
    blobs = [config, manifest, *(layer.blob for layer in layers)]
    docker = {
        "Config": _place(config),
        "RepoTags": [reference],
        "Layers": [_place(layer.blob) for layer in layers],
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}),
        "manifest.json": _json([docker]),
        **{_place(blob): blob for blob in blobs},
    }
    return tar({path: File(content) for path, content in files.items()})


def _config(
    layers: Sequence[Layer], configuration: Configuration, architecture: str
) -> dict[str, object]:
    run: dict[str, object] = {
        "Env": [f"{name}={value}" for name, value in configuration.environment.items()],
        "Entrypoint": list(configuration.entrypoint),
        "Cmd": list(configuration.command),
        "User": configuration.user,
        "WorkingDir": configuration.folder,
        "Labels": dict(configuration.labels),
    }
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {name: value for name, value in run.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [layer.content_digest for layer in layers]},
        "history": [{"created_by": layer.made_of} for layer in layers],
    }


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _place(blob: bytes) -> str:
    return f"blobs/{_digest(blob).replace(':', '/')}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

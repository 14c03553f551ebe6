"""The chart, rendered by Helm: into the files beside it, and with any other choice of values.

Everybody who only reads what is shipped uses `localcluster.shipped`, which needs no Helm.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from image.product import read_project
from localcluster.files import write_atomically
from localcluster.parts.catalogue import KUBERNETES, architecture, catalogue
from localcluster.parts.installed import find
from localcluster.settings import default_settings
from localcluster.shipped import MANIFESTS, ManifestError, Object

CHART = MANIFESTS / "chart"
PART = "helm"
"""The program that rendering needs."""

Values = Mapping[str, Any]

#: The committed files by name, without their ending, and the values that they are rendered with.
FILES: Mapping[str, Values] = {
    "kubeadm": {},
    "k3s": {"flavor": "k3s"},
    "talos": {"flavor": "talos"},
    "second-scheduler": {"scheduler": {"mode": "second"}},
    "cert-manager": {"certificates": {"mode": "cert-manager"}},
}

_HEADER = """\
# Rendered from manifests/chart by `make manifests`: change the chart, not this file.
#
#   kubectl apply -f {name}.yaml         kubectl delete -f {name}.yaml
#
# Values other than the chart's: {values}
"""


def text_of(name: str, *, helm: Path) -> str:
    """What the committed file of that name should hold; raises `ManifestError`."""
    values = FILES[name]
    shown = json.dumps(values) if values else "none"
    return _HEADER.format(name=name, values=shown) + render(values, helm=helm)


def objects_of(values: Values) -> list[Object]:
    """The objects that the chart makes of `values`; raises `ManifestError`, also without Helm."""
    helm = find(catalogue(architecture())[PART], default_settings())
    if helm is None:
        raise ManifestError("helm is not on this machine: run `python -m localcluster parts helm`")
    return [item for item in yaml.safe_load_all(render(values, helm=helm)) if item is not None]


def render(values: Values, *, helm: Path) -> str:
    """The YAML that Helm makes of the chart for kubectl; raises `ManifestError` with Helm's words.

    The release is nobody's: namespaces are written in every object.
    """
    done = subprocess.run(
        [
            *(str(helm), "template", "gpudetour", str(CHART), "--namespace=kube-system"),
            *("--skip-tests", f"--kube-version={KUBERNETES}", "--values=-"),
        ],
        input=json.dumps({"managedBy": "kubectl", **values}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ManifestError(done.stderr.strip())
    return done.stdout


def version() -> str:
    """The project's version, which is the chart's and the image's."""
    return read_project(MANIFESTS.parent).version


def write_files(*, helm: Path) -> list[Path]:
    """Give the chart the project's version, render all files, and return those that changed."""
    head = CHART / "Chart.yaml"
    said = re.sub(r"(?m)^(version|appVersion): .*$", rf"\1: {version()}", head.read_text())
    changed = _write({head: said})
    return changed + _write(
        {MANIFESTS / f"{name}.yaml": text_of(name, helm=helm) for name in FILES}
    )


def _write(files: Mapping[Path, str]) -> list[Path]:
    changed = [
        path for path, text in files.items() if not path.exists() or path.read_text() != text
    ]
    for path in changed:
        write_atomically(path, files[path].encode())
    return changed

"""What is in the image, as SPDX 2.3 in JSON. Pure: equal input gives equal bytes.

Versions are those that were unpacked, hashes those that were checked at download. A licence that is
not told in SPDX's own terms is NOASSERTION, with the words that were found as a comment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from image.licences import is_spdx, of_debian, of_wheel
from image.package import Package
from image.product import Project
from image.wheels import Wheel

_EPOCH = "1970-01-01T00:00:00Z"
"""SPDX wants a time; one of the clock would make every document another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianFile:
    """A Debian package and the hash of its file."""

    package: Package
    sha256: str


def sbom(
    project: Project,
    debian: Sequence[DebianFile],
    wheels: Sequence[Wheel],
    *,
    architecture: str,
    reference: str,
) -> bytes:
    """The document for an image."""
    parts = [
        *(_debian(file, architecture) for file in debian),
        *(_wheel(wheel) for wheel in wheels),
    ]
    product = _part(project.name, project.version, f"pkg:pypi/{project.name}@{project.version}") | {
        "licenseDeclared": project.licence,
        "summary": project.description,
    }
    image = _part(reference, project.version, "") | {"primaryPackagePurpose": "CONTAINER"}
    everything = [image, product, *parts]
    identity = hashlib.sha256(json.dumps(everything).encode()).hexdigest()
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{project.name}-{project.version}-{architecture}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{project.name}-{project.version}-{identity}",
        "creationInfo": {"created": _EPOCH, "creators": [f"Tool: {project.name}-image"]},
        "packages": everything,
        "relationships": [
            _relation("SPDXRef-DOCUMENT", "DESCRIBES", image["SPDXID"]),
            *(_relation(image["SPDXID"], "CONTAINS", part["SPDXID"]) for part in everything[1:]),
            *(_relation(product["SPDXID"], "DEPENDS_ON", _wheel_id(wheel)) for wheel in wheels),
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _debian(file: DebianFile, architecture: str) -> dict[str, object]:
    package = file.package
    where = f"pkg:deb/debian/{package.name}@{package.version}?arch={architecture}&distro=debian-12"
    source = package.field("Source", package.name)
    return _part(package.name, package.version, where.replace("+", "%2B")) | {
        "checksums": [{"algorithm": "SHA256", "checksumValue": file.sha256}],
        "sourceInfo": f"built from the Debian source package {source}",
        "supplier": f"Organization: {package.field('Maintainer').partition(' <')[0]}",
        **_licence(of_debian(package.licences())),
    }


def _wheel(wheel: Wheel) -> dict[str, object]:
    part = _part(wheel.name, wheel.version, f"pkg:pypi/{wheel.name}@{wheel.version}")
    return part | {
        "packageFileName": wheel.file_name,
        "checksums": [{"algorithm": "SHA256", "checksumValue": wheel.sha256}],
        **_licence(of_wheel(wheel.licence)),
    }


def _wheel_id(wheel: Wheel) -> str:
    return _identifier(f"pkg:pypi/{wheel.name}@{wheel.version}")


def _part(name: str, version: str, where: str) -> dict[str, object]:
    references = {
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": where,
    }
    return {
        "SPDXID": _identifier(where or name),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        **({"externalRefs": [references]} if where else {}),
    }


def _licence(told: str) -> dict[str, str]:
    if not told:
        return {}
    if is_spdx(told):
        return {"licenseDeclared": told}
    return {"licenseComments": f"As told by the package: {told}"}


def _relation(subject: object, kind: str, other: object) -> dict[str, object]:
    return {"spdxElementId": subject, "relationshipType": kind, "relatedSpdxElement": other}


def _identifier(text: str) -> str:
    return f"SPDXRef-{re.sub(r'[^A-Za-z0-9.]+', '-', text).strip('-')}"

"""docs/security.md speaks of policies and tests that exist, and of all policies."""

from __future__ import annotations

import re

from localcluster import shipped

ROOT = shipped.MANIFESTS.parent
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_test_that_proves_something_is_there() -> None:
    named = re.findall(r"`(?:tests/)?((?:[a-z_]+/)+(?:test_[a-z_]+\.py)?)`", PAGE)
    proofs = {name for name in named if name.endswith(".py") or name == "ha/"}

    assert len(proofs) > 10
    assert {name for name in proofs if not (ROOT / "tests" / name).exists()} == set()


def test_every_policy_is_spoken_of_by_its_name() -> None:
    shipped_names = {
        item["metadata"]["name"] for item in shipped.objects("ValidatingAdmissionPolicy")
    }
    named = set(re.findall(r"`(gpudetour-[a-z-]+)`", PAGE))

    assert shipped_names <= named
    others = {item["metadata"]["name"] for item in shipped.objects()}
    assert named <= shipped_names | others | {"gpudetour-fence-probe"}

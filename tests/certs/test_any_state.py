"""Whatever lies in the Secrets and the caBundle, two passes end in a state that works."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from certs.authority import KeyPair, Subject, Usage, issue, new_authority
from certs.names import leaves
from tests.certs.cluster import CONFIGURATION
from tests.certs.making import DAY
from tests.certs.site import CLIENT, EXTENDER, WEBHOOK, Site, Wanted, verifies

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LEAVES = leaves("gpudetour-system")
SECRETS = ["gpudetour-ca", *(leaf.secret for leaf in LEAVES)]
KEYS = ["tls.crt", "tls.key", "ca.crt", "retiring.crt", "retiring.key", "trusted-since", "x"]


def _pool() -> list[bytes]:
    """Certificates and keys of all ages and kinds, and what is neither."""
    ages = (-400 * DAY, -20 * DAY, 0 * DAY, 3 * DAY)
    authorities = [new_authority(now=NOW + age, lifetime=60 * DAY) for age in ages]
    pairs: list[KeyPair] = [*authorities]
    for authority in authorities[1:3]:
        subjects = (
            LEAVES[0].subject,
            LEAVES[2].subject,
            Subject(common_name="x", usage=Usage.CLIENT),
        )
        pairs += [issue(authority, s, now=NOW - 5 * DAY, lifetime=30 * DAY) for s in subjects]
    found = [part for pair in pairs for part in (pair.certificate, pair.key)]
    found += [a.certificate + b.certificate for a in authorities for b in authorities if a is not b]
    times = [b"2026-11-22T11:00:00+00:00", b"2126-11-22T11:00:00+00:00", b"2026-11-22"]
    return [*found, *times, b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n", found[0][:-40]]


contents = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(_pool()), max_size=len(KEYS))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(SECRETS), contents),
    st.none() | st.sampled_from([b"", b"garbage", *_pool()[:4]]),
)
def test_any_state_is_mended_in_two_passes(
    found: dict[str, dict[str, bytes]], bundle: bytes | None
) -> None:
    site = Site(Wanted(names=LEAVES), NOW)
    for name, data in found.items():
        site.objects.set_data(name, **{key.replace(".", "_"): data[key] for key in data})
    if bundle is not None:
        entry = site.objects.stored[CONFIGURATION]["webhooks"][0]["clientConfig"]
        entry["caBundle"] = base64.b64encode(bundle).decode()
    site.converge()
    site.converge()

    trusted = site.objects.ca_bundles()[0] or b""
    for path in (WEBHOOK, EXTENDER, CLIENT):
        held = site.objects.data(path.rpartition("/")[2])
        assert verifies(held["tls.crt"], trusted, site.now)
        assert held["ca.crt"] == trusted == site.objects.data("gpudetour-ca")["ca.crt"]
    assert not site.converge().changed

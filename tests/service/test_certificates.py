"""When a certificate expires is read as the library that makes certificates reads it."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certs.authority import Subject, Usage, issue, new_authority
from service.certificates import Expiry, not_after
from service.metrics import new_registry
from tests.certs.making import Mounted, authority, server

SUBJECT = Subject(common_name="x", usage=Usage.SERVER, hosts=frozenset({"x"}))
AUTHORITY = new_authority(now=datetime(2026, 1, 1, tzinfo=UTC), lifetime=timedelta(days=365_000))


@given(st.datetimes(datetime(2026, 1, 2), datetime(2990, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_date_is_that_of_the_certificate(until: datetime) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    pair = issue(AUTHORITY, SUBJECT, now=begin, lifetime=until - begin)

    expected = x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc
    assert not_after(pair.certificate) == expected
    assert not_after(b"a comment\n" + pair.certificate + AUTHORITY.certificate) == expected


@given(st.data())
def test_what_is_damaged_is_an_error_or_still_a_date(data: st.DataObject) -> None:
    pem = bytearray(AUTHORITY.certificate)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(pem) - 1))
        pem[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=3))
        pem = pem or bytearray(b"x")
    with contextlib.suppress(ValueError):
        assert not_after(bytes(pem)).tzinfo is UTC


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff", AUTHORITY.key])
def test_what_is_no_certificate_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        not_after(content)


def test_the_metric_follows_its_file(tmp_path: Path) -> None:
    files = Mounted(tmp_path / "tls")
    registry = new_registry("test")
    Expiry(registry).follow("webhook", files.cert_file)
    labels = {"name": "webhook"}

    def told() -> float:
        value = registry.get_sample_value("gpudetour_certificate_not_after_seconds", labels)
        assert value is not None
        return value

    assert math.isnan(told())
    files.put(server(authority()))
    first = told()
    assert timedelta(days=29) < datetime.fromtimestamp(first, UTC) - datetime.now(UTC)
    files.put(server(authority(), now=datetime.now(UTC) + timedelta(days=3)))
    assert told() - first > 2 * 86400

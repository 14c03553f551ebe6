"""Quantities against an oracle that never sees the text: it is given the parts."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpus.quantity import MAX, QuantityError, parse, whole, written

#: Written out on purpose, and not computed as the code does.
MULTIPLIERS = {
    "": Fraction(1),
    "n": Fraction(1, 1_000_000_000),
    "u": Fraction(1, 1_000_000),
    "m": Fraction(1, 1_000),
    "k": Fraction(1_000),
    "M": Fraction(1_000_000),
    "G": Fraction(1_000_000_000),
    "T": Fraction(1_000_000_000_000),
    "P": Fraction(1_000_000_000_000_000),
    "E": Fraction(1_000_000_000_000_000_000),
    "Ki": Fraction(1_024),
    "Mi": Fraction(1_048_576),
    "Gi": Fraction(1_073_741_824),
    "Ti": Fraction(1_099_511_627_776),
    "Pi": Fraction(1_125_899_906_842_624),
    "Ei": Fraction(1_152_921_504_606_846_976),
}
DIGITS = st.text(alphabet="0123456789", max_size=12)


@given(
    sign=st.sampled_from(["", "+", "-"]),
    before=DIGITS,
    after=st.none() | DIGITS,
    suffix=st.sampled_from(sorted(MULTIPLIERS))
    | st.tuples(st.sampled_from("eE"), st.integers(-20, 20)),
)
def test_a_quantity_is_exactly_what_its_parts_say(
    sign: str, before: str, after: str | None, suffix: str | tuple[str, int]
) -> None:
    text = sign + before + (f".{after}" if after is not None else "")
    value = Fraction(int((before + (after or "")) or "0"), 10 ** len(after or ""))
    if isinstance(suffix, tuple):
        text += f"{suffix[0]}{suffix[1]}"
        value *= Fraction(10) ** suffix[1]
    else:
        text += suffix
        value *= MULTIPLIERS[suffix]
    if sign == "-":
        value = -value

    if not (before or after) or abs(value) > MAX:
        with pytest.raises(QuantityError):
            parse(text)
    else:
        assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        (0, 0),
        ("1", 1),
        (8, 8),
        ("+2", 2),
        ("1.0", 1),
        (2.0, 2),
        ("1e1", 10),
        ("1E1", 10),
        ("1E", 10**18),
        ("1Ki", 1024),
        ("0.5Ki", 512),
        ("2000m", 2),
        ("1k", 1000),
        ("80Gi", 80 * 1024**3),
        (str(MAX), MAX),
    ],
)
def test_whole_quantities_are_numbers(text: str | int | float, count: int) -> None:
    assert whole(text) == count


@pytest.mark.parametrize("text", ["-1", -1, "1.5", 1.5, "500m", "1n", "1e-1", "0.3Ki"])
def test_a_count_is_never_negative_and_never_a_part(text: str | int | float) -> None:
    with pytest.raises(QuantityError, match="whole number"):
        whole(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " 1",
        "1 ",
        "1\n",
        "+",
        "-",
        ".",
        "--1",
        "1..0",
        "1.1.M",
        "1,5",
        "1_000",
        "0x10",
        "\uff11",
        "\u0661",
        "\u00b2",
        "1K",
        "1ki",
        "1mi",
        "1KiB",
        "1B",
        "1i",
        "1GiG",
        "1 Gi",
        "1e",
        "1e+",
        "1e1.5",
        "1e1Gi",
        "1Gie1",
        "NaN",
        "inf",
        "Infinity",
        "all",
        "1e999",
        "1e99999",
        "1e-999",
        "10E",
        "8Ei",
        str(MAX + 1),
        "9" * 10_000,
        10**30,
        pytest.param(10**5000, id="5001 digits"),
        1e300,
        float("nan"),
        float("inf"),
        True,
    ],
)
def test_what_is_no_usable_quantity_is_refused_with_a_short_reason(
    text: str | int | float,
) -> None:
    with pytest.raises(QuantityError) as refused:
        whole(text)

    assert len(str(refused.value)) < 160


@given(st.text(max_size=80) | st.integers() | st.floats())
def test_nothing_but_a_quantity_error_is_ever_raised(text: str | int | float) -> None:
    with contextlib.suppress(QuantityError):
        assert abs(parse(text)) <= MAX


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1536, "1536"),
        (8 << 30, "8Gi"),
        (1536 << 20, "1536Mi"),
        (1 << 40, "1Ti"),
        (8 * 10**9, "7812500Ki"),
    ],
)
def test_bytes_are_written_in_the_largest_unit_that_needs_no_fraction(size: int, text: str) -> None:
    assert written(size) == text


@given(st.integers(0, MAX) | st.builds(int.__lshift__, st.integers(0, 999), st.integers(0, 50)))
def test_bytes_are_read_back_as_they_were_written(size: int) -> None:
    assert whole(written(size)) == size

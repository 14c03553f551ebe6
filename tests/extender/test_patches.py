"""A patched map is a dict that nobody changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from extender.placement.patches import Patched

changes = st.dictionaries(st.integers(0, 300), st.none() | st.integers(), max_size=90)


@given(st.lists(st.tuples(changes, st.booleans()), max_size=12))
def test_a_patched_map_equals_a_dict(history: list[tuple[dict[int, int | None], bool]]) -> None:
    patched: Patched[int, int] = Patched()
    expected: dict[int, int] = {}
    seen: list[tuple[Patched[int, int], dict[int, int]]] = []
    for change, look in history:
        patched = patched.having(change)
        both: dict[int, int | None] = {**expected, **change}
        expected = {key: value for key, value in both.items() if value is not None}
        if look:
            assert dict(patched.flat()) == expected
        seen.append((patched, expected))

    for old, then in seen:
        for key in range(300):
            assert old.get(key) == then.get(key)
            assert (key in old) == (key in then)
        assert (dict(old), len(old)) == (then, len(then))
        assert old == then

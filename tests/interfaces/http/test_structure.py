"""How much a text of JSON has, told without reading it."""

import json

import pytest
from hypothesis import given, strategies as st

from p2pnode.interfaces.http import structure
from p2pnode.interfaces.http.structure import Structure, structure_of

ENOUGH = Structure(10**6, 10**6)
letters = st.text('a"\\,[{:]}\u00e9\n', max_size=12)
values = st.recursive(
    st.none() | st.integers() | letters,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(letters, inner, max_size=4),
)


@given(value=values, chunk=st.integers(1, 40), is_ascii=st.booleans())
def test_what_is_counted_is_what_is_there(value: object, chunk: int, is_ascii: bool) -> None:
    data = json.dumps(value, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structure, "_CHUNK", chunk)
        found = structure_of(data, ENOUGH)
    assert found == counted(value)


def counted(value: object) -> Structure:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    within = [counted(one) for one in inner]
    names = len(value) if isinstance(value, dict) else 0
    return Structure(
        sum(one.parts for one in within) + isinstance(value, dict | list) + names,
        sum(one.values for one in within) + max(0, len(within) - 1),
    )


@given(st.binary(max_size=60), st.integers(1, 9))
def test_any_bytes_are_counted(data: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structure, "_CHUNK", chunk)
        found = structure_of(data, ENOUGH)
    assert found.parts <= sum(map(data.count, (b"[", b"{", b":")))
    assert found.values <= data.count(b",")


def test_counting_ends_where_there_is_more_than_may_be() -> None:
    found = structure_of(b"[" * 10**6, Structure(10, 10))
    assert 10 < found.parts < 10**6

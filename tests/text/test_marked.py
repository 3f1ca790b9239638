"""Every operation on marked text gives what it gives on plain text, and never the wrong mark."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.text.marked import (
    DATA,
    TEMPLATE,
    UNKNOWN,
    Marked,
    as_data,
    data_text,
    joined,
    mark_of,
    marks_of,
    template_text,
    text_of,
)

# Which alphabet a character is of tells who wrote it.
OURS, THEIRS, NOBODYS = "AB <\n", "ab\t>|", "12"
MARK = dict.fromkeys(OURS, TEMPLATE) | dict.fromkeys(THEIRS, DATA) | dict.fromkeys(NOBODYS, UNKNOWN)


def marked(text: str) -> Marked:
    return Marked(text, b"".join(MARK[letter] for letter in text))


texts = st.text(OURS + THEIRS + NOBODYS, max_size=12).map(marked)
some = texts.filter(bool)
numbers = st.integers(-14, 14)


def exact(result: object, plain: object) -> None:
    """Demand the same text, and of each character its own mark or none."""
    if isinstance(plain, str):
        assert isinstance(result, str)
        assert str.__str__(result) == plain
        for letter, mark in zip(plain, marks_of(result), strict=True):
            assert bytes([mark]) in (MARK[letter], UNKNOWN)
        return
    assert isinstance(plain, list | tuple)
    assert isinstance(result, list | tuple)
    for one, other in zip(result, plain, strict=True):
        exact(one, other)


def followed(result: object) -> None:
    """Demand that no mark was lost."""
    if isinstance(result, str):
        assert marks_of(result) == b"".join(MARK[letter] for letter in result)
    else:
        assert isinstance(result, list | tuple)
        for one in result:
            followed(one)


@given(texts, numbers, numbers, st.sampled_from([1, 2, -1, -3]))
def test_slices(text: Marked, start: int, stop: int, step: int) -> None:
    exact(text[start:stop:step], str.__str__(text)[start:stop:step])
    followed(text[start:stop:step])
    followed(list(text))
    if -len(text) <= start < len(text):
        followed(text[start])


@given(texts, st.none() | texts)
def test_stripping(text: Marked, chars: str | None) -> None:
    for name in ("strip", "lstrip", "rstrip"):
        exact(getattr(text, name)(chars), getattr(str.__str__(text), name)(chars))
        followed(getattr(text, name)(chars))
    for name in ("removeprefix", "removesuffix"):
        exact(getattr(text, name)(chars or ""), getattr(str.__str__(text), name)(chars or ""))
        followed(getattr(text, name)(chars or ""))


@given(texts, st.none() | some, st.integers(-1, 4))
def test_splitting(text: Marked, sep: str | None, most: int) -> None:
    for name in ("split", "rsplit"):
        exact(getattr(text, name)(sep, most), getattr(str.__str__(text), name)(sep, most))
        followed(getattr(text, name)(sep, most))
    for keep in (False, True):
        exact(text.splitlines(keep), str.__str__(text).splitlines(keep))
        followed(text.splitlines(keep))
    if sep:
        for name in ("partition", "rpartition"):
            exact(getattr(text, name)(sep), getattr(str.__str__(text), name)(sep))
            followed(getattr(text, name)(sep))


@given(texts, texts, texts, st.integers(-1, 3))
def test_putting_together(one: Marked, two: Marked, three: Marked, count: int) -> None:
    plain = [str.__str__(text) for text in (one, two, three)]
    for result, expected in (
        (one + two, plain[0] + plain[1]),
        (one * count, plain[0] * count),
        (count * one, plain[0] * count),
        (one.join([two, three, two]), plain[0].join([plain[1], plain[2], plain[1]])),
        (joined((one, two)), plain[0] + plain[1]),
    ):
        exact(result, expected)
        followed(result)
    exact(one.replace(two, three, count), plain[0].replace(plain[1], plain[2], count))
    if two:
        followed(one.replace(two, three, count))
    assert marks_of("12" + one) == UNKNOWN * 2 + marks_of(one)
    assert marks_of(one + "12") == marks_of(one) + UNKNOWN * 2


@given(texts, texts)
def test_filling_in(one: Marked, two: Marked) -> None:
    pattern = template_text("A%sB%s<")
    exact(pattern % (one, two), f"A{str.__str__(one)}B{str.__str__(two)}<")
    followed(pattern % (one, two))
    followed(template_text("A%s") % one)
    with pytest.raises(TypeError):
        pattern % (one,)


@pytest.mark.parametrize(
    "call",
    [
        lambda text: text.center(20),
        lambda text: text.ljust(20),
        lambda text: text.zfill(20),
        lambda text: text.expandtabs(),
        lambda text: text.translate({65: "<|"}),
        lambda text: f"{text:>20}",
        repr,
        lambda text: text.encode().decode(),
        "".join,
    ],
)
def test_what_is_not_followed_is_nobodys(call: Any) -> None:
    for text in (template_text("A B"), data_text("a b")):
        assert marks_of(call(text)).strip(UNKNOWN) == b""


def test_letters_that_keep_their_place_keep_their_mark() -> None:
    text = joined((template_text("a"), data_text("bC")))
    for name in ("upper", "lower", "title", "capitalize", "casefold", "swapcase"):
        changed = getattr(text, name)()
        assert str.__str__(changed) == getattr("abC", name)()
        assert marks_of(changed) == TEMPLATE + DATA * 2
    assert marks_of(joined((template_text("a"), data_text("ß"))).upper()) == UNKNOWN * 3
    assert marks_of(data_text("ß").upper()) == DATA * 2


def test_a_mark_for_each_character() -> None:
    with pytest.raises(ValueError, match="one mark"):
        Marked("ab", DATA)


def test_everything_handed_in_is_data() -> None:
    value: Any = as_data([{"a": ["b", 1, None]}, ("c",)])
    assert json.dumps(value) == '[{"a": ["b", 1, null]}, ["c"]]'
    assert mark_of(value) == DATA
    assert mark_of([value, template_text("x")]) == UNKNOWN
    assert mark_of([1, None, {}]) == b""
    assert mark_of(iter(["a"])) == UNKNOWN
    assert marks_of(text_of(value)).strip(DATA) == b""
    assert marks_of(text_of(12)) == UNKNOWN * 2


values = st.recursive(
    texts | st.integers() | st.none() | st.booleans() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=3)
        | st.tuples(inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


@given(values)
def test_a_value_is_written_out_as_ever(value: object) -> None:
    assert str.__str__(text_of(value)) == str(value)


@given(texts)
def test_text_in_a_list_keeps_its_marks(text: Marked) -> None:
    written = text_of([text])
    if len(written) == len(text) + 4:
        assert marks_of(written) == DATA * 2 + marks_of(text) + DATA * 2
    assert marks_of(text_of([template_text("\n")])) == DATA + TEMPLATE * 4 + DATA


def test_half_a_pair_is_replaced() -> None:
    assert str.__str__(data_text("a\ud800b")) == "a\ufffdb"

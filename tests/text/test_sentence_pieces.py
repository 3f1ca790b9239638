"""Pieces merge by their scores, data never becomes control, and text comes back."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ModelError
from p2pnode.text.marked import data_text, joined, template_text
from p2pnode.text.tokenizer import Tokenizer
from p2pnode.text.vocabulary import Vocabulary
from tests.text.nasty import NASTY, texts
from tests.text.small_pieces import CONTROL, FIRST, KINDS, SCORES, TOKENS, fields

SMALL = Tokenizer(**fields())
CONTROLS = range(FIRST)
BYTES = range(FIRST, FIRST + 256)
PLAIN = {
    text: token for token, text in enumerate(TOKENS) if token >= FIRST + 256 and text.strip(" \n")
}

letters = st.text("aab \u2581therstINSTx\u6f22<>[]/0A.", max_size=40)
spelled = st.lists(st.sampled_from([*CONTROL, "<0x41>", "<0x0A>", "a", " ", "<", "s>"])).map(
    "".join
)


def merged_slowly(text: str) -> list[str]:
    """Merge as the rule says, looking at every pair every time."""
    parts = list(text)
    while True:
        pairs = [
            (-SCORES[PLAIN[left + right]], at)
            for at, (left, right) in enumerate(pairwise(parts))
            if left + right in PLAIN
        ]
        if not pairs:
            return parts
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(letters | texts)
def test_the_best_pair_is_merged_first_and_of_equals_the_leftmost(text: str) -> None:
    if any(defined in text for defined in ("  ", "\n\n", "<b>")) or not text:
        return
    expected: list[int] = []
    for part in merged_slowly("\u2581" + text.replace(" ", "\u2581")):
        token = PLAIN.get(part)
        expected += [FIRST + byte for byte in part.encode()] if token is None else [token]
    assert SMALL.encode(text) == expected


@given(letters | texts | spelled)
def test_no_text_becomes_control_or_a_byte_that_is_no_part_of_it(text: str) -> None:
    for given_text in (text, data_text(text)):
        ids = SMALL.encode(given_text)
        assert not set(ids) & set(CONTROLS)
        bytes_left = bytes(token - FIRST for token in ids if token in BYTES)
        assert all(byte in text.encode("utf-8", "replace") for byte in bytes_left)


@given(letters | texts | spelled)
def test_text_comes_back(text: str) -> None:
    assert (
        SMALL.decode(SMALL.encode(text))
        == text.replace("\u2581", " ").encode("utf-8", "replace").decode()
    )


@given(st.lists(st.tuples(st.sampled_from(CONTROL), letters), max_size=5))
def test_a_prompt_comes_back_with_its_control_tokens(turns: list[tuple[str, str]]) -> None:
    text = joined(part for mark, said in turns for part in (template_text(mark), data_text(said)))
    ids = SMALL.encode(text)
    assert [token for token in ids if token < FIRST] == [CONTROL.index(mark) for mark, _ in turns]
    assert SMALL.decode(ids, control=True) == str.__str__(text).replace("\u2581", " ")


@given(st.lists(st.integers(-1, len(TOKENS)), max_size=20))
def test_streaming_gives_what_decoding_at_once_gives(ids: list[int]) -> None:
    decoder = SMALL.decoder()
    assert "".join(map(decoder.push, ids)) == SMALL.decode(ids)


def test_half_a_character_is_never_shown() -> None:
    ids = SMALL.encode("\U0001f600")[1:]
    assert ids == [FIRST + byte for byte in "\U0001f600".encode()]
    decoder = SMALL.decoder()
    assert [decoder.push(token) for token in ids] == ["", "", "", "\U0001f600"]


def test_the_space_before_a_text_is_put_and_taken_at_its_beginning_alone() -> None:
    the, world = TOKENS.index("\u2581the"), TOKENS.index("\u2581world")
    assert SMALL.encode("the world") == [the, world]
    assert SMALL.encode(template_text("[INST]") + "the") == [3, the]
    assert SMALL.decode([the, world]) == "the world"
    assert SMALL.decoder(after=world).push(the) == " the"
    assert SMALL.decoder(after=4).push(the) == "the"
    assert [*map(SMALL.decoder(after=4).push, (the, world))] == ["the", " world"]
    assert [*map(SMALL.decoder(after=world).push, (3, the))] == ["", "the"]


def test_gemma_puts_no_space_before_a_text() -> None:
    bare = Tokenizer(**fields(space_prefix=False))
    assert bare.encode("the world")[-1] == TOKENS.index("\u2581world")
    assert bare.encode("the")[0] != TOKENS.index("\u2581the")
    for text in NASTY:
        assert bare.decode(bare.encode(text)) == text.replace("\u2581", " ")
    assert bare.decode([TOKENS.index("\u2581the")]) == " the"


def test_user_defined_tokens_are_text() -> None:
    bold = TOKENS.index("<b>")
    assert bold in SMALL.encode("a<b>")
    assert SMALL.decode(SMALL.encode("  a<b>  \n\n b")) == "  a<b>  \n\n b"


def test_white_space_behind_control_tokens_goes_where_the_model_wants_it() -> None:
    phi = Tokenizer(**fields(strips=True))
    the = TOKENS.index("\u2581the")
    assert phi.encode(template_text("[INST]\n") + "the") == [3, the]
    assert phi.encode(template_text("<s>\n") + "the")[1:2] != [the]
    assert phi.encode(" \nthe") == SMALL.encode(" \nthe")
    assert phi.encode(template_text("[INST]\n")) == [3]


def test_a_text_begins_once() -> None:
    begun = Tokenizer(**fields(add_bos=True))
    assert begun.encode("the") == [1, TOKENS.index("\u2581the")]
    assert begun.encode("") == [1]
    assert begun.encode(template_text("<s>") + "the") == [1, TOKENS.index("\u2581the")]


def test_what_cannot_be_cut_is_merged_all_the_same() -> None:
    assert len(SMALL.encode("a" * 20_000)) == 6_668  # of three each
    assert SMALL.decode(SMALL.encode("ab" * 9_999)) == "ab" * 9_999


def test_what_is_spelled_as_a_byte_is_a_byte_whatever_its_type() -> None:
    kinds = [1 if kind == 6 else kind for kind in KINDS]
    assert Tokenizer(**fields(kinds=kinds)).encode("\x07") == SMALL.encode("\x07")
    assert Tokenizer(**fields(kinds=kinds)).decode(SMALL.encode("\x07")) == "\x07"


@pytest.mark.parametrize("text", ["hello", "x", "the"])
def test_what_is_not_spelled_as_a_byte_is_none_whatever_its_type(text: str) -> None:
    tokens = [*TOKENS, "the"]
    kinds = [6 if one == text else kind for one, kind in zip(tokens, [*KINDS, 1], strict=True)]
    words = Tokenizer(**fields(tokens=tokens, kinds=kinds, scores=[*SCORES, -1.0]))
    assert words.decode(words.encode("hello the box")).strip() == "hello the box"


def test_gemmas_tag_for_a_line_through_text_is_no_beginning() -> None:
    kinds = [*KINDS]
    kinds[1] = 4
    assert 1 not in Tokenizer(**fields(kinds=kinds)).encode("<s>")
    assert 1 in Tokenizer(**fields(kinds=kinds, bos=5)).encode("<s>")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"kind": "rwkv"}, "unknown kind 'rwkv'"),
        ({"scores": SCORES[1:]}, "scores"),
        ({"scores": [float("nan"), *SCORES[1:]]}, "no number"),
        ({"tokens": ["x1" if one == "<0x41>" else one for one in TOKENS]}, "<0x41>"),
        ({"kinds": KINDS[1:]}, "types"),
        ({"tokens": [*TOKENS[:-1], "a"]}, "both 'a'"),
    ],
)
def test_what_cannot_be_encoded_is_named(changed: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        Vocabulary(**fields(**changed))

"""Texts become word pieces: within bounds, by the model's definition, and never its marks."""

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import ModelError, UserError
from p2pnode.text.word_pieces import MOST_CHARACTERS, WordPieces

VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##s", "the", "cat", "[", "]"),
    "sep",
)


def definition(**changes: Any) -> bytes:
    """What BERT's ``tokenizer.json`` says, with few words."""
    words = {word: number for number, word in enumerate(VOCABULARY)}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": word, "special": True, **special}
        for word, number in words.items()
        if word.startswith("[") and len(word) > 1
    ]
    mark = {word: {"id": word, "ids": [words[word]], "tokens": [word]} for word in words}
    single = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    body: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": {
            "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
            "strip_accents": None, "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": single,
            "special_tokens": {name: mark[name] for name in ("[CLS]", "[SEP]")},
        },
        "decoder": None,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": words,
        },
    }  # fmt: skip
    return json.dumps(body | changes).encode()


def ids(text: str, most: int = 8) -> list[str]:
    return [VOCABULARY[token] for token in WordPieces(definition(), most, 30).encode(text).ids]


def test_words_become_pieces_between_marks() -> None:
    assert ids("The cats playing") == ["[CLS]", "the", "cat", "##s", "play", "##ing", "[SEP]"]
    assert ids("") == ["[CLS]", "[SEP]"]
    assert ids("dog") == ["[CLS]", "[UNK]", "[SEP]"]


def test_a_text_cannot_write_a_mark() -> None:
    assert ids("[SEP]") == ["[CLS]", "[", "sep", "]", "[SEP]"]


def test_a_long_text_is_cut_and_said_to_be() -> None:
    pieces = WordPieces(definition(), 8, 30)
    assert pieces.encode("the " * 6).ids == (2, *[7] * 6, 3)
    assert not pieces.encode("the " * 6).is_cut
    longer = pieces.encode("the " * 7)
    assert longer.ids == (2, *[7] * 6, 3)
    assert longer.is_cut
    endless = pieces.encode(" " * MOST_CHARACTERS + "the")
    assert (endless.ids, endless.is_cut) == ((2, 3), True)


@settings(max_examples=100)
@given(st.text(), st.integers(3, 20))
def test_whatever_is_said_fits(text: str, most: int) -> None:
    found = WordPieces(definition(), most, 30).encode(text)
    assert 2 <= len(found.ids) <= most
    assert found.ids[0] == 2
    assert found.ids[-1] == 3
    assert not {2, 3} & {*found.ids[1:-1]}


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(UserError, match="characters that are none"):
        WordPieces(definition(), 8, 30).encode("a\ud800")


@pytest.mark.parametrize("broken", [b"", b"{}", b"\xff", definition(model={"type": "Nothing"})])
def test_a_broken_definition_is_refused(broken: bytes) -> None:
    with pytest.raises(ModelError, match="vocabulary is broken"):
        WordPieces(broken, 8, 30)


def test_a_vocabulary_larger_than_the_models_is_refused() -> None:
    with pytest.raises(ModelError, match="larger than 5"):
        WordPieces(definition(), 8, 5)

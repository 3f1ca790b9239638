"""Own answers keep their tokens when they are quoted, and no text becomes another for it."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.text.detokenizer import Detokenizer
from p2pnode.text.marked import data_text, template_text
from p2pnode.text.own_tokens import OwnTokens
from p2pnode.text.tokenizer import Tokenizer, byte_alphabet
from tests.text import small_pieces

_ALPHABET = [*byte_alphabet()]
_MERGED = ["aa", "ab", "ba", "aaa", "aba", "abab", "b\u010a", "\u010a\u010a"]
BYTES: dict[str, Any] = {
    "tokens": [*_ALPHABET, *_MERGED, "<s>", "</s>"],
    "kinds": [1] * (len(_ALPHABET) + len(_MERGED)) + [3, 3],
    "merges": [
        *("a a", "a b", "b a", "aa a", "ab a", "ab ab"),
        *("b \u010a", "\u010a \u010a"),
    ],
    "pre": "gpt-2",
}
KINDS = {"bytes": Tokenizer(**BYTES), "pieces": Tokenizer(**small_pieces.fields())}
CONTEXT = 1000
TOKENIZERS = pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)


def speller(tokenizer: Tokenizer) -> Detokenizer:
    return Detokenizer.of(tokenizer.vocabulary)


def said(ids: tuple[int, ...], detokenizer: Detokenizer) -> list[tuple[int | None, bytes]]:
    """Return each control token, and the text up to it."""
    found: list[tuple[int | None, bytes]] = []
    text, starts = b"", detokenizer.ends_text(None)
    for token in (*ids, None):
        if token is None or detokenizer.is_control(token):
            found.append((token, text))
            text = b""
        else:
            data = detokenizer.bytes_of(token)
            is_stripped = starts and detokenizer.in_text(token)
            text += data.removeprefix(b" ") if is_stripped else data
        starts = detokenizer.ends_text(token)
    return found


def special(tokenizer: Tokenizer, spelled: str) -> int:
    return tokenizer.vocabulary.tokens.index(spelled)


def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[tuple[int, ...]]:
    """Return many short texts of few tokens, so that some begin alike."""
    few = [*"ab \n", "aa", "ab", "abab", "</s>", "<s>", " a", "\u2581a", "\u2581"]
    known = [index for index, text in enumerate(tokenizer.vocabulary.tokens) if text in few]
    return st.lists(st.sampled_from(known), max_size=12).map(tuple)


@given(st.data())
@TOKENIZERS
def test_no_text_becomes_another(tokenizer: Tokenizer, data: st.DataObject) -> None:
    own, some = OwnTokens(), ids_of(tokenizer)
    for prompt, answer in data.draw(st.lists(st.tuples(some, some), max_size=4)):
        own.note(prompt, answer)
    asked = data.draw(some)
    restored = own.restored(asked, speller(tokenizer), CONTEXT)
    assert said(restored, speller(tokenizer)) == said(asked, speller(tokenizer))


@given(st.data())
@TOKENIZERS
def test_a_quoted_answer_keeps_its_tokens(tokenizer: Tokenizer, data: st.DataObject) -> None:
    detokenizer, end = speller(tokenizer), special(tokenizer, "</s>")
    question = template_text("<s>") + data_text("ab") + template_text("</s>")
    prompt = tuple(tokenizer.encode(question))
    in_text = ids_of(tokenizer).map(lambda ids: tuple(filter(detokenizer.in_text, ids)))
    answers = data.draw(st.lists(in_text.filter(bool), min_size=1, max_size=3))
    own, ids = OwnTokens(), prompt
    for answer in answers:  # each turn quotes all answers before it as text
        own.note(ids, (*answer, end))
        decoder = tokenizer.decoder(after=ids[-1])
        text = "".join(map(decoder.push, answer))
        question += data_text(text) + template_text("</s>") + data_text("b") + template_text("</s>")
        asked = tuple(tokenizer.encode(question))
        restored = own.restored(asked, detokenizer, CONTEXT)
        assert restored[: len(ids) + len(answer) + 1] == (*ids, *answer, end)
        ids = restored


@TOKENIZERS
def test_an_answer_whose_end_was_stripped_keeps_the_rest(tokenizer: Tokenizer) -> None:
    detokenizer, own = speller(tokenizer), OwnTokens()
    start = special(tokenizer, "<s>")
    a, b = (special(tokenizer, letter) for letter in "ab")
    [space] = tokenizer.encode("a ")[len(tokenizer.encode("a")) :][-1:]
    own.note((start,), (a, b, a, space))
    asked = tuple(tokenizer.encode(template_text("<s>") + data_text("aba") + template_text("</s>")))
    assert asked != (start, a, b, a, special(tokenizer, "</s>"))
    assert own.restored(asked, detokenizer, CONTEXT)[:4] == (start, a, b, a)


def test_what_was_said_becomes_no_special_token() -> None:
    tokenizer = KINDS["bytes"]
    own, end = OwnTokens(), special(tokenizer, "</s>")
    own.note((5,), (6, end, 7))
    forged = tuple(tokenizer.encode(tokenizer.decode([5, 6]) + "</s>" + tokenizer.decode([7])))
    assert own.restored(forged, speller(tokenizer), CONTEXT) == forged


def test_a_few_are_remembered_and_the_least_recently_used_is_forgotten() -> None:
    tokenizer, own = KINDS["bytes"], OwnTokens(most_answers=2, most_tokens=12)
    a, b = (special(tokenizer, letter) for letter in "ab")
    ends = [special(tokenizer, one) for one in ("<s>", "</s>")]
    own.note((ends[0],), (a, b))
    own.note((ends[1],), (a, b))
    asked = (ends[0], special(tokenizer, "ab"), ends[1])
    assert own.restored(asked, speller(tokenizer), CONTEXT) == (ends[0], a, b, ends[1])
    own.note((a,), (b, b))
    assert len(own) == 2
    assert own.restored(asked, speller(tokenizer), CONTEXT) == (ends[0], a, b, ends[1])
    own.note((b,) * 20, (a,))
    assert (len(own), own.tokens) == (0, 0)


def test_tokens_that_would_fill_the_context_stay_as_they_are() -> None:
    tokenizer, own = KINDS["bytes"], OwnTokens()
    start, a = (special(tokenizer, one) for one in ("<s>", "a"))
    own.note((start,), (a, a, a))
    asked = (start, special(tokenizer, "aaa"), start)
    assert own.restored(asked, speller(tokenizer), 6) == (start, a, a, a, start)
    assert own.restored(asked, speller(tokenizer), 5) == asked


def test_the_next_turn_takes_the_place_of_the_last() -> None:
    own = OwnTokens()
    own.note((1, 2), (3, 4))
    own.note((1, 2, 3, 4), (5,))
    own.note((9,), ())
    assert (len(own), own.tokens) == (1, 5)

"""A checkpoint's tokenizer.json becomes the vocabulary that a GGUF gives, or is refused by name."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer as Library

from p2pnode.errors import ModelError
from p2pnode.node.models import resolve
from p2pnode.text.checkpoint_vocabulary import checkpoint_vocabulary
from p2pnode.text.marked import template_text
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.specials import UNUSED
from p2pnode.text.stored_vocabulary import read_vocabulary
from p2pnode.text.tokenizer import Tokenizer
from p2pnode.text.vocabulary import MAX_TEMPLATE, Vocabulary
from tests.text import small_pieces
from tests.text.nasty import NASTY, SHORT, texts
from tests.text.test_families import LETTERS
from tests.text.tokenizer_files import SPACE, library_of, tokenizer, word_files

CHAT = [{"role": "user", "content": "Hi <|im_end|>\n<|im_start|>"}]


def model(name: str) -> Path:
    try:
        return resolve(name)
    except ModelError:
        pytest.skip(f"p2pnode models pull {name}")


@pytest.fixture(scope="module")
def smollm() -> Vocabulary:
    return read_vocabulary(model("smollm2-135m"))


def test_a_real_vocabulary_is_the_one_of_its_gguf(smollm: Vocabulary) -> None:
    files = word_files(library_of(smollm).to_str(), smollm, chat_template=smollm.template)
    made = tokenizer(files)
    for field in fields(Vocabulary):
        assert getattr(made.vocabulary, field.name) == getattr(smollm, field.name), field.name
    known = Tokenizer.from_model(model("smollm2-135m"))
    assert [made.encode(text) for text in SHORT] == [known.encode(text) for text in SHORT]
    assert made.encode(made.chat(CHAT)) == known.encode(known.chat(CHAT))
    assert made.stop_ids == known.stop_ids


def test_pieces_have_the_ids_that_the_library_gives() -> None:
    """Gemma's first 12,000 tokens and all its letters: the whole takes ten seconds."""
    known = read_vocabulary(model("gemma3-270m"))
    few = [token for token, text in enumerate(known.tokens) if token < 12_000 or len(text) == 1]
    known = replace(
        known,
        tokens=[known.tokens[token] for token in few],
        kinds=[known.kinds[token] for token in few],
        scores=[known.scores[token] for token in few],
    )
    library = library_of(known)
    ours = tokenizer(word_files(library.to_str(), known, rows=262_144))
    assert ours.vocabulary.add_bos
    for text in NASTY:
        assert ours.encode(template_text(text)) == library.encode(text).ids, text


# Small ones


BYTES = Vocabulary(
    tokens=["<|endoftext|>", "<|im_start|>", *LETTERS, "th", "the", "\u0120the"],
    kinds=[3, 3, *[1] * 259],
    merges=["t h", "th e", "\u0120 the"],
    pre="smollm",
    bos=0,
    eos=0,
    ends=(0,),
)
MORE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # no half of a token may be missing, as in a real vocabulary
PIECES = Vocabulary(
    **small_pieces.fields(
        tokens=[*small_pieces.TOKENS, *MORE],
        kinds=[*small_pieces.KINDS, *[1] * len(MORE)],
        scores=[-float(token) for token in range(len(small_pieces.TOKENS) + len(MORE))],
        ends=(2,),
    )
)


def body(known: Vocabulary = BYTES) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(library_of(known).to_str())
    return made


NORMALS: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, NORMALS]}
GEMMA = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}


def metaspace(scheme: str) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}


@pytest.mark.parametrize(
    "cut",
    [
        {"normalizer": PREPEND, "pre_tokenizer": None},
        {"normalizer": NORMALS, "pre_tokenizer": None},
        {"normalizer": NORMALS, "pre_tokenizer": GEMMA},
        {"normalizer": None, "pre_tokenizer": metaspace("first")},
        {"normalizer": None, "pre_tokenizer": metaspace("always")},
        {"normalizer": None, "pre_tokenizer": metaspace("never")},
    ],
    ids=["prepend", "replace", "gemma", "first", "always", "never"],
)
def test_spaces_before_text_are_put_as_the_library_puts_them(cut: dict[str, Any]) -> None:
    said = json.dumps(body(PIECES) | cut)
    library, ours = Library.from_str(said), tokenizer(word_files(said, PIECES))
    begin = ours.vocabulary.text(1)
    for plain in (*SHORT, " the", "  the", f"{SPACE}the"):
        for text in (plain, begin + plain, f"{plain}{begin}the", f"{begin} {plain}"):
            expected = library.encode(text, add_special_tokens=False).ids
            assert ours.encode(template_text(text)) == expected, text


@settings(max_examples=60)
@given(texts)
def test_any_text_has_the_ids_that_the_library_gives(text: str) -> None:
    for known in (BYTES, PIECES):
        said = library_of(known).to_str()
        library, ours = Library.from_str(said), tokenizer(word_files(said, known))
        expected = library.encode(text, add_special_tokens=False).ids
        assert ours.encode(template_text(text)) == expected


@pytest.mark.parametrize("known", [BYTES, PIECES], ids=["bytes", "pieces"])
def test_merges_are_read_in_both_forms(known: Vocabulary) -> None:
    pairs = body(known)
    lines = body(known)
    lines["model"]["merges"] = [" ".join(pair) for pair in pairs["model"]["merges"]]
    assert isinstance(pairs["model"]["merges"][0], list)
    first, second = (checkpoint_vocabulary(word_files(one, known)) for one in (pairs, lines))
    assert first == second


def byte_level(*patterns: str, how: str = "Isolated", **more: object) -> dict[str, Any]:
    cuts = [
        {
            "type": "Split",
            "pattern": {"Regex": one},
            "behavior": how,
            "invert": how == "Removed",
        }
        for one in patterns
    ]
    last = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False, **more}
    return {"type": "Sequence", "pretokenizers": [*cuts, last]}


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_known_cut_is_recognised(pre: str) -> None:
    one = PRE_TOKENIZERS[pre]
    said = body() | {"pre_tokenizer": byte_level(*one.patterns)}
    said["model"]["ignore_merges"] = one.words_whole
    said["normalizer"] = {"type": "NFC"} if one.composed else None
    found = PRE_TOKENIZERS[checkpoint_vocabulary(word_files(said, BYTES)).pre]
    assert replace(found, adds_bos=False, checked_against="") == replace(
        one, adds_bos=False, checked_against=""
    )


def test_cuts_that_drop_what_lies_between_count_where_nothing_does() -> None:
    pattern = PRE_TOKENIZERS["gpt-4o"].patterns[0]
    said = body() | {"pre_tokenizer": byte_level(pattern, how="Removed")}
    assert checkpoint_vocabulary(word_files(said, BYTES)).pre == "gpt-4o"
    said |= {"pre_tokenizer": byte_level(r"\p{N}", pattern, how="Removed")}
    with pytest.raises(ModelError, match="Removed"):
        checkpoint_vocabulary(word_files(said, BYTES))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "unknown kind 'Unigram'"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "unknown kind 'WordPiece'"),
        ({"model": {"type": "BPE"}}, "no vocabulary"),
        ({"model": None}, "unknown kind 'None'"),
        ({"pre_tokenizer": byte_level("(a+)+$")}, r"does not know \(\(a\+\)\+\$"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "Whitespace"),
        ({"pre_tokenizer": None}, "nothing"),
        ({"pre_tokenizer": byte_level(add_prefix_space=True)}, "a space before text"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [[]]}}, "unknown form"),
        ({"normalizer": {"type": "Lowercase"}}, "normalises text.*Lowercase"),
        ({"added_tokens": [{"content": "x"}]}, "broken added token"),
        ({"added_tokens": {}}, None),
        ({"added_tokens": 3}, "broken added token"),
        ({"added_tokens": [{"content": "th", "id": 9}]}, "is token 258, and 9 as well"),
        ({"added_tokens": [{"content": "new", "id": 9}]}, "token 9 is both"),
        ({"added_tokens": [{"content": "x", "id": True}]}, "is token True"),
        ({"added_tokens": [{"content": "x", "id": -1}]}, "is token -1"),
        ({"added_tokens": [{"content": "<m>", "id": 262, "lstrip": True}]}, "has lstrip"),
    ],
)
def test_what_is_not_known_is_named(changed: dict[str, Any], what: str | None) -> None:
    files = word_files(body() | changed, BYTES, rows=263)
    if what is None:
        checkpoint_vocabulary(files)
        return
    with pytest.raises(ModelError, match=what) as caught:
        checkpoint_vocabulary(files)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"merges": ["t  h"]}, "merge of no two tokens"),
        ({"merges": [["t", ""]]}, "merge of no two tokens"),
        ({"merges": [["t", 3]]}, "merge of no two tokens"),
        ({"merges": {}}, "merge of no two tokens"),
        ({"merges": [["t", "x"]]}, "merges 't x'"),
        ({"dropout": 0.1}, "dropout"),
        ({"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ({"vocab": {"a": 0, "b": 0}}, "token 0 is both"),
        ({"vocab": {"a": 1.5}}, r"is token 1\.5"),
        ({"vocab": {"\ud800": 9}}, "no text"),
    ],
)
def test_a_broken_model_is_named(changed: dict[str, Any], what: str) -> None:
    said = body()
    said["model"] |= changed
    with pytest.raises(ModelError, match=what):
        checkpoint_vocabulary(word_files(said, BYTES))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"pre_tokenizer": metaspace("first") | {"split": True}}, "Metaspace"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": SPACE}}, "Metaspace"),
        ({"pre_tokenizer": metaspace("sometimes"), "normalizer": None}, "puts spaces"),
        ({"normalizer": {"type": "NFKC"}}, "NFKC"),
        ({"normalizer": None}, "what becomes of spaces"),
    ],
)
def test_what_pieces_do_not_know_is_named(changed: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        checkpoint_vocabulary(word_files(body(PIECES) | changed, PIECES))


def test_files_that_are_missing_or_hold_too_much_are_refused() -> None:
    for text, what in (
        ("", r"has no tokenizer\.json"),
        ("[" * 5_000_000, "holds more than is read"),
        ("[" + "0," * 13_000_000, "holds more than is read"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "no object"),
        ("{", "no usable JSON"),
        ('{"model": {}, "model": {}}', "a key stands twice"),
    ):
        with pytest.raises(ModelError, match=what):
            checkpoint_vocabulary(word_files(text, BYTES))
    with pytest.raises(ModelError, match="more than is read"):
        checkpoint_vocabulary(word_files(body(), BYTES, rows=1 << 40))


def test_rows_without_a_token_are_those_of_a_converted_file() -> None:
    padded = tokenizer(word_files(body(), BYTES, rows=300))
    assert len(padded) == 300
    assert padded.vocabulary.tokens[299] == "[PAD299]"
    assert padded.vocabulary.kinds[299] == UNUSED
    assert padded.decode([299, 259]) == "[PAD299]the"
    assert 299 not in padded.encode("[PAD299]")


def test_tokens_beyond_the_rows_are_passed_over() -> None:
    said = body()
    said["added_tokens"].append({"content": "<image>", "id": 261, "special": True})
    assert len(tokenizer(word_files(said, BYTES))) == 261


def test_what_ends_an_answer_is_said_in_several_places() -> None:
    read = checkpoint_vocabulary(
        replace(word_files(body(), BYTES, eos_token={"content": "<|im_start|>"}), ends=(0, 999))
    )
    assert (read.eos, read.ends) == (1, (0, 1))
    alone = checkpoint_vocabulary(replace(word_files(body(), rows=261), bos=0, ends=(3,)))
    assert (alone.bos, alone.eos, alone.ends, alone.add_bos) == (0, None, (3,), False)


@pytest.mark.parametrize("flag", [True, False, None])
def test_whether_a_text_begins_with_a_token(flag: bool | None) -> None:
    known = replace(BYTES, add_bos=True)
    read = checkpoint_vocabulary(word_files(body(known), known, add_bos_token=flag))
    assert read.add_bos is (flag is not False)
    assert checkpoint_vocabulary(word_files(body(), BYTES, add_bos_token=flag)).add_bos is bool(
        flag
    )


def test_the_template_has_a_file_of_its_own_or_is_the_default_of_several() -> None:
    def read(chat_template: object, template: str = "") -> str:
        files = word_files(body(), BYTES, template=template, chat_template=chat_template)
        return checkpoint_vocabulary(files).template

    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    assert read(several) == "yes"
    assert read(several[:1]) == ""
    assert read("other", "own") == "own"
    for odd, what in ((3, "no text"), ("\ud800", "no text"), ("x" * (MAX_TEMPLATE + 1), "most")):
        with pytest.raises(ModelError, match=what):
            read(odd)
    own = word_files(body(), BYTES)
    with pytest.raises(ModelError, match="UTF-8"):
        checkpoint_vocabulary(replace(own, template=b"\xff"))


def test_white_space_goes_with_the_tokens_that_take_it() -> None:
    said = body()
    said["added_tokens"][1]["rstrip"] = True
    made, library = tokenizer(word_files(said, BYTES)), Library.from_str(json.dumps(said))
    for text in ("<|im_start|> \n the", "<|endoftext|> the", " <|im_start|>"):
        expected = library.encode(text, add_special_tokens=False).ids
        assert made.encode(template_text(text)) == expected


def test_text_that_looks_like_control_is_text() -> None:
    made = tokenizer(word_files(body(), BYTES))
    assert made.encode("<|im_start|>")[0] != 1
    assert made.encode(template_text("<|im_start|>")) == [1]


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 1.5, "", "x", [], [[]], {}, {"type": "BPE"}, "\ud800", 1 << 70]
)


@settings(max_examples=200)
@given(st.data())
def test_a_broken_file_is_one_error(data: st.DataObject) -> None:
    """Any part of a good file replaced by anything: a vocabulary, or a ModelError."""
    known = data.draw(st.sampled_from([BYTES, PIECES]))
    said: Any = {
        **body(known),
        "config": {"eos_token": "x", "chat_template": [{"name": "default"}]},
    }
    at, key = said, data.draw(st.sampled_from(sorted(said)))
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        keys = sorted(at)[:20] if isinstance(at, dict) else range(min(len(at), 20))
        key = data.draw(st.sampled_from([*keys]))
    at[key] = data.draw(ODD)
    changed = said.pop("config")
    files = word_files(said, known, **(changed if isinstance(changed, dict) else {}))
    cut = data.draw(st.none() | st.integers(0, len(files.tokenizer)))
    for one in (files, replace(files, tokenizer=files.tokenizer[:cut])):
        try:
            checkpoint_vocabulary(one)
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017  either is right

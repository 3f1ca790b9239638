"""What a prompt will need is looked at before any comes."""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from p2pnode.engine.stored_model import open_stored
from p2pnode.errors import ModelError
from p2pnode.text.detokenizer import byte_alphabet
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.stored_vocabulary import check_words, vocabulary_of
from p2pnode.text.tokenizer import Tokenizer
from p2pnode.text.vocabulary import MAX_TEMPLATE
from tests.text import small_pieces

LETTERS = [*byte_alphabet()]
TOKENS = [*LETTERS, "ab", "<|end|>", ""]
GIVEN: dict[str, Any] = {
    "model": "gpt2",
    "pre": "gpt-2",
    "tokens": TOKENS,
    "token_type": [1] * 257 + [3, 1],
    "merges": ["a b"],
    "bos_token_id": 257,
    "eos_token_id": 257,
    "chat_template": "{{ messages }}",
}


def written(path: Path, **changed: Any) -> Path:
    """Write a file of nothing but a vocabulary; None leaves a key out."""
    writer = GGUFWriter(path, "llama")
    for key, value in (GIVEN | changed).items():
        name = f"tokenizer.{key}" if key == "chat_template" else f"tokenizer.ggml.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool) and key.startswith("add_"):
            writer.add_bool(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_int32(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"model": "t5"}, "unknown kind 't5'"),
        ({"model": 7}, "unknown kind '7'"),
        ({"model": None}, "no vocabulary"),
        ({"tokens": None}, "no tokens"),
        ({"tokens": 7}, "no tokens"),
        ({"token_type": None}, "no types"),
        ({"token_type": [1] * 9}, "259 tokens and 9 types"),
        ({"merges": None}, "no merges"),
        ({"merges": ["a c"]}, "merges 'a c'"),
        ({"merges": ["ab"]}, "merges 'ab'"),
        ({"pre": "somebody-elses"}, "somebody-elses"),
        ({"pre": None}, "'default'"),
        ({"tokens": [*LETTERS, "ab", "a", ""]}, "both 'a'"),
        ({"tokens": [*LETTERS, "<|end|>", "<|end|>", ""]}, r"256 and 257 are both '<\|end\|>'"),
        ({"chat_template": "{% for %}"}, "chat template.*line 1"),
        ({"chat_template": "x" * (MAX_TEMPLATE + 1)}, "characters"),
    ],
)
def test_what_is_missing_or_contradicts_is_named(
    tmp_path: Path, changed: dict[str, Any], what: str
) -> None:
    with (
        open_stored(written(tmp_path / "odd.gguf", **changed)) as file,
        pytest.raises(ModelError, match=what) as caught,
    ):
        check_words(file)
    assert str(caught.value).startswith("odd.gguf")


PIECES: dict[str, Any] = {
    "model": "llama",
    "pre": "default",
    "tokens": small_pieces.TOKENS,
    "token_type": small_pieces.KINDS,
    "scores": small_pieces.SCORES,
    "merges": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def test_a_vocabulary_of_pieces_has_its_usual_numbers(tmp_path: Path) -> None:
    with open_stored(written(tmp_path / "pieces.gguf", **PIECES)) as file:
        check_words(file)
        read = vocabulary_of(file)
    assert (read.bos, read.eos, read.ends) == (1, 2, (2,))
    assert (read.add_bos, read.space_prefix, read.strips) == (True, True, False)
    assert [*read.scores] == small_pieces.SCORES
    assert Tokenizer.from_model(tmp_path / "pieces.gguf").encode("the") == [
        1,
        small_pieces.TOKENS.index("\u2581the"),
    ]


@pytest.mark.parametrize("value", [True, False])
def test_what_the_file_says_goes_before_what_is_usual(tmp_path: Path, value: bool) -> None:
    said = {"add_bos_token": value, "add_space_prefix": value, "bos_token_id": 5}
    with open_stored(written(tmp_path / "pieces.gguf", **PIECES | said)) as file:
        read = vocabulary_of(file)
    assert (read.bos, read.add_bos, read.space_prefix) == (5, value, value)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_known_cut_passes(tmp_path: Path, pre: str) -> None:
    with open_stored(written(tmp_path / "known.gguf", pre=pre)) as file:
        check_words(file)
        assert vocabulary_of(file).add_bos is PRE_TOKENIZERS[pre].adds_bos


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"scores": None}, "no scores"),
        ({"scores": small_pieces.SCORES[1:]}, "scores"),
        ({"token_type": None}, "no types"),
        ({"tokens": small_pieces.TOKENS[9:], "token_type": small_pieces.KINDS[9:],
          "scores": small_pieces.SCORES[9:]}, "no token <0x00>"),
    ],
)  # fmt: skip
def test_what_pieces_lack_is_named(tmp_path: Path, changed: dict[str, Any], what: str) -> None:
    with (
        open_stored(written(tmp_path / "odd.gguf", **PIECES | changed)) as file,
        pytest.raises(ModelError, match=what) as caught,
    ):
        check_words(file)
    assert str(caught.value).startswith("odd.gguf")


def test_a_vocabulary_without_a_template_passes(tmp_path: Path) -> None:
    with open_stored(written(tmp_path / "plain.gguf", chat_template=None)) as file:
        check_words(file)
        assert vocabulary_of(file).template == ""


@pytest.mark.parametrize("odd", [259, -1, 2.5, "x", True])
def test_an_id_that_does_not_exist_names_nothing(tmp_path: Path, odd: object) -> None:
    path = written(tmp_path / "ids.gguf", bos_token_id=odd, eos_token_id=odd, eot_token_id=257)
    with open_stored(path) as file:
        check_words(file)
        read = vocabulary_of(file)
    expected = 1 if odd is True else None  # written as the number it is
    assert (read.bos, read.eos) == (expected, expected)
    assert set(read.ends) == {257, expected} - {None}

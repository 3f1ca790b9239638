"""The vocabulary of a GGUF file."""

import sys
from array import array
from collections.abc import Sequence
from typing import Any, Final

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue
from p2pnode.errors import ModelError
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.vocabulary import BYTE_LEVEL, FIT, SENTENCE_PIECES, Vocabulary, check_kind

_KEY: Final = "tokenizer.ggml."
_FLOAT: Final = 6  # as GGUF numbers types: 32 bits


def gguf_vocabulary(file: GgufFile) -> Vocabulary:
    """Read the vocabulary of an open file.

    Raises:
        ModelError: It is missing, broken, or of an unknown kind.
    """
    return Vocabulary(**_fields(file))


def _fields(file: GgufFile) -> dict[str, Any]:
    """Return the fields of a :class:`Vocabulary` as an open file has them."""
    kind = file.metadata.get(f"{_KEY}model")
    if kind is None:
        raise ModelError(f"{file.path.name} has no vocabulary ({_KEY}model)", hint=FIT)
    check_kind(kind)
    by_kind = _read_merges(file) if kind == BYTE_LEVEL else _read_scores(file)
    for key, what in (
        ("tokens", "no tokens"),
        ("token_type", "no types of its tokens, so control tokens are not known"),
    ):
        _require(file, key, what)
    tokens = file.texts(f"{_KEY}tokens")
    ids = {key: _token(file, key, len(tokens)) for key in ("bos", "eos", "eot", "eom")}
    if kind == SENTENCE_PIECES:
        ids |= {
            key: usual
            for key, usual in (("bos", 1), ("eos", 2))
            if f"{_KEY}{key}_token_id" not in file.metadata and usual < len(tokens)
        }
    ends = {one for key in ("eos", "eot", "eom") if (one := ids[key]) is not None}
    return {
        "kind": kind,
        "tokens": tokens,
        "kinds": file.integers(f"{_KEY}token_type"),
        "template": file.text("tokenizer.chat_template", ""),
        "bos": ids["bos"],
        "eos": ids["eos"],
        "ends": tuple(sorted(ends)),
        **by_kind,
    }


def _read_merges(file: GgufFile) -> dict[str, Any]:
    _require(file, "merges", "no merges, so no text can be cut into its tokens")
    if f"{_KEY}pre" not in file.metadata:
        raise ModelError(
            f"{file.path.name} does not say how its text is cut ({_KEY}pre), and 'default' may be "
            "wrong",
            hint="Use a newer file of this model: old conversions left this out.",
        )
    pre = file.text(f"{_KEY}pre")
    known = PRE_TOKENIZERS.get(pre)
    return {
        "pre": pre,
        "merges": file.texts(f"{_KEY}merges"),
        "add_bos": _flag(file, "add_bos_token", known is not None and known.adds_bos),
    }


def _read_scores(file: GgufFile) -> dict[str, Any]:
    _require(file, "scores", "no scores of its tokens, so no text can be cut into them")
    name = str(file.metadata.get("general.name", "")).lower()
    return {
        "pre": "",
        "merges": (),
        "scores": _numbers(file, "scores"),
        "add_bos": _flag(file, "add_bos_token", True),
        "space_prefix": _flag(file, "add_space_prefix", True),
        # Nothing in the file says so: it is a property of Phi-3's tokenizer.
        "strips": file.metadata.get("general.architecture") == "phi3"
        or any(known in name for known in ("phi-3", "phi3")),
    }


def _require(file: GgufFile, key: str, what: str) -> None:
    if not isinstance(file.metadata.get(_KEY + key), ArrayValue):
        raise ModelError(f"{file.path.name} has {what} ({_KEY}{key})", hint=FIT)


def _flag(file: GgufFile, key: str, default: bool) -> bool:
    value = file.metadata.get(_KEY + key, default)
    return value if isinstance(value, bool) else default


def _numbers(file: GgufFile, key: str) -> Sequence[float]:
    """Return an array of numbers, of 32 bits as such files have them, or of whole ones."""
    value = file.metadata.get(_KEY + key)
    if isinstance(value, ArrayValue) and value.element_type == _FLOAT:
        numbers = array("f", file.array_bytes(value))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers
    return file.integers(_KEY + key)


def _token(file: GgufFile, key: str, count: int) -> int | None:
    """Return a token's id; one that does not exist, or is no number, names nothing."""
    value = file.metadata.get(f"{_KEY}{key}_token_id")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        return None
    return value

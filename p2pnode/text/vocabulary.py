"""What a model's file says of its tokens, checked before anybody's prompt needs it."""

import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final, Self

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue
from p2pnode.errors import ModelError
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS
from p2pnode.text.specials import BYTE, CONTROL, UNKNOWN_KIND

BYTE_LEVEL: Final = "gpt2"
"""Tokens of bytes, merged in the order of a list."""

SENTENCE_PIECES: Final = "llama"
"""Tokens of characters, merged by their scores: SentencePiece's BPE, as in Llama 2 and Gemma."""

KINDS: Final = (BYTE_LEVEL, SENTENCE_PIECES)
"""Kinds of vocabularies that are known, as ``tokenizer.ggml.model`` has them."""

MAX_TEMPLATE: Final = 256 * 1024
"""Characters of a chat template: the longest that are shipped have some 30,000."""

_TURN_MARKS: Final = frozenset(
    {
        *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>"),
        *(
            "<|im_sep|>",
            "<|endoftext|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|eom_id|>",
        ),
        *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>"),
        *("<|assistant|>", "<|end|>", "<|end_of_turn|>", "<|start|>", "<|message|>", "<|return|>"),
        *("<|im_sep|>", "<|channel|>", "<|call|>", "[INST]", "[/INST]", "<EOT>", "[TOOL_CALLS]"),
        *(f"[{end}{tag}]" for end in ("", "/") for tag in ("SYSTEM_PROMPT", "TOOL_RESULTS")),
        *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
        *("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
        *(f"<\uff5c{one}\u2581of\u2581sentence\uff5c>" for one in ("begin", "end")),
    }
)
"""Tokens that mark turns in the families of models that are shipped. Some files call them ordinary
or user-defined; then any text could forge turns. llama.cpp mends such files by spelling, too."""

_STRUCK: Final = "<s>"
"""Begins a text in some vocabularies; in Gemma's, where ``<bos>`` does, HTML's tag for a line
through text."""

_HEADS: Final = frozenset("<[")  # with which all of these begin
_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_TAG: Final = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
_KEY: Final = "tokenizer.ggml."
_FLOAT: Final = 6  # as GGUF numbers types: 32 bits
_FIT: Final = "Use another file of this model: this one was converted wrongly."


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One model's tokens, as its file has them.

    Attributes:
        tokens: Each token's text, by id: in GPT-2's byte alphabet, or with U+2581 for spaces;
            control tokens as they are.
        merges: Pairs to merge, best first, each two texts with a space between; of bytes only.
        kinds: Each token's type as GGUF has it: 3 is control, 4 user-defined, 6 a byte. What marks
            turns, and what the file itself calls a beginning or an end, is control whatever it
            says.
        pre: How text is cut before merging; of bytes only.
        template: The chat template, or "" where the model has none.
        bos: Id of the begin-of-text token, or None.
        eos: Id of the end-of-text token, or None.
        add_bos: Whether every text starts with ``bos``.
        ends: Ids that the file says end an answer.
        kind: ``gpt2`` or ``llama``.
        scores: How good each token is to merge, by id; of pieces only.
        space_prefix: Whether a space is put before every text; of pieces only.
        strips: Whether control tokens take the white space behind them with them.

    Raises:
        ModelError: A prompt could not be encoded with it, or wrongly.
    """

    tokens: Sequence[str]
    merges: Sequence[str]
    kinds: Sequence[int]
    pre: str
    template: str = ""
    bos: int | None = None
    eos: int | None = None
    add_bos: bool = False
    ends: tuple[int, ...] = ()
    kind: str = BYTE_LEVEL
    scores: Sequence[float] = ()
    space_prefix: bool = False
    strips: bool = False

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        if len(self.kinds) != len(self.tokens):
            raise ModelError(
                f"the vocabulary has {len(self.tokens)} tokens and {len(self.kinds)} types",
                hint=_FIT,
            )
        object.__setattr__(self, "kinds", self._mended())  # frozen for everybody else
        known = self._distinct()
        if self.kind == BYTE_LEVEL:
            self._check_merges(known)
        else:
            self._check_scores()
            self._check_bytes(known)
        if len(self.template) > MAX_TEMPLATE:
            raise ModelError(
                f"the model's chat template has {len(self.template)} characters; "
                f"{MAX_TEMPLATE} is the most"
            )

    def _mended(self) -> tuple[int, ...]:
        named = {*self.ends, self.bos, self.eos}
        marks = _TURN_MARKS
        if self.bos is not None and self.tokens[self.bos] != _STRUCK:
            marks -= {_STRUCK}
        mended = list(self.kinds)
        for token, text in enumerate(self.tokens):
            if text[:1] not in _HEADS:  # nearly all: this runs over a quarter of a million
                continue
            if text in marks or (token in named and _TAG.fullmatch(text)):
                mended[token] = CONTROL
            elif self.kind == SENTENCE_PIECES and _BYTE.fullmatch(text):
                mended[token] = BYTE
            elif self.kind == SENTENCE_PIECES and mended[token] == BYTE:
                mended[token] = UNKNOWN_KIND
        return tuple(mended)

    def _check_merges(self, known: set[str]) -> None:
        if self.pre not in PRE_TOKENIZERS:
            raise ModelError(
                f"the model cuts its text in a way this node does not know ({self.pre!r})",
                hint=f"Known pre-tokenizers: {', '.join(PRE_TOKENIZERS)}.",
            )
        for merge in self.merges:
            left, between, right = merge.partition(" ")
            whole = left + right
            if not between or left not in known or right not in known or whole not in known:
                raise ModelError(
                    f"the model's vocabulary is broken: it merges {merge[:80]!r}, and has not all "
                    "three tokens of that",
                    hint=_FIT,
                )

    def _check_scores(self) -> None:
        if len(self.scores) != len(self.tokens):
            raise ModelError(
                f"the vocabulary has {len(self.tokens)} tokens and {len(self.scores)} scores",
                hint=_FIT,
            )
        if any(map(isnan, self.scores)):
            raise ModelError("the model's vocabulary is broken: a score is no number", hint=_FIT)

    def _check_bytes(self, known: set[str]) -> None:
        for byte in range(256):
            if f"<0x{byte:02X}>" not in known:
                raise ModelError(
                    f"the model's vocabulary has no token <0x{byte:02X}>, so not every text has "
                    "tokens",
                    hint=_FIT,
                )

    def _distinct(self) -> set[str]:
        known = set(self.tokens)
        if len(known) == len(self.tokens):
            return known
        seen: set[str] = set()
        for token, text in enumerate(self.tokens):
            if text in seen:
                first = self.tokens.index(text)
                raise ModelError(
                    f"the model's vocabulary is broken: tokens {first} and {token} are both "
                    f"{text[:80]!r}",
                    hint=_FIT,
                )
            seen.add(text)
        return known

    @classmethod
    def from_file(cls, file: GgufFile) -> Self:
        """Read the vocabulary of an open file.

        Raises:
            ModelError: It is missing, broken, or of an unknown kind.
        """
        try:
            return cls(**_read(file))
        except ModelError as error:
            if str(error).startswith(file.path.name):
                raise
            raise ModelError(f"{file.path.name}: {error}", hint=error.hint) from error

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token: no text has fewer tokens than its bytes divided by it."""
        return max((len(text.encode()) for text in self.tokens), default=1) or 1

    def text(self, token: int | None) -> str:
        """Return how a token is spelled; "" for None."""
        return "" if token is None else self.tokens[token]


def check_vocabulary(file: GgufFile) -> None:
    """Make sure that prompts can be made for the model of an open file; cheap, before any comes.

    A model without a chat template passes: it can still continue plain text.

    Raises:
        ModelError: Tokens, types, merges or the pre-tokenizer are missing, contradict each other
            or are unknown, or the chat template is no jinja2.
    """
    from p2pnode.text.template import check_template

    vocabulary = Vocabulary.from_file(file)
    try:
        check_template(vocabulary.template)
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}", hint=error.hint) from error


def _read(file: GgufFile) -> dict[str, Any]:
    """Return the fields of a :class:`Vocabulary` as an open file has them."""
    kind = file.metadata.get(f"{_KEY}model")
    if kind is None:
        raise ModelError(f"{file.path.name} has no vocabulary ({_KEY}model)", hint=_FIT)
    _check_kind(kind)
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


def _check_kind(kind: object) -> None:
    if kind not in KINDS:
        raise ModelError(
            f"the model has a vocabulary of the unknown kind {str(kind)[:80]!r}",
            hint=f"Known kinds: {', '.join(KINDS)}.",
        )


def _require(file: GgufFile, key: str, what: str) -> None:
    if not isinstance(file.metadata.get(_KEY + key), ArrayValue):
        raise ModelError(f"{file.path.name} has {what} ({_KEY}{key})", hint=_FIT)


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

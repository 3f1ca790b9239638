"""What a model's file says of its tokens, checked before anybody's prompt needs it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

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
        *("<|channel|>", "<|call|>", "[INST]", "[/INST]", "<EOT>", "[TOOL_CALLS]"),
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
FIT: Final = "Use another file of this model: this one was converted wrongly."
"""What to do about a vocabulary that is broken."""


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
        scores: How good each token is to merge, by id, minus infinity where nothing merges to it;
            of pieces only.
        space_prefix: Whether a space is put before every text; of pieces only.
        prefix_once: Whether that space is put at the very beginning alone, and not behind a special
            token as well.
        prefix_spared: Whether it is not put where a space stands already.
        strips: Whether control tokens take the white space behind them with them, as in Phi-3.
        stripping: Ids of those that do, where a file says it of each.

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
    prefix_once: bool = False
    prefix_spared: bool = False
    strips: bool = False
    stripping: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if len(self.kinds) != len(self.tokens):
            raise ModelError(
                f"the vocabulary has {len(self.tokens)} tokens and {len(self.kinds)} types",
                hint=FIT,
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
            if text[:1] not in _HEADS and mended[token] != BYTE:
                continue  # nearly all: this runs over a quarter of a million
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
                    hint=FIT,
                )

    def _check_scores(self) -> None:
        if len(self.scores) != len(self.tokens):
            raise ModelError(
                f"the vocabulary has {len(self.tokens)} tokens and {len(self.scores)} scores",
                hint=FIT,
            )
        if any(map(isnan, self.scores)):
            raise ModelError("the model's vocabulary is broken: a score is no number", hint=FIT)

    def _check_bytes(self, known: set[str]) -> None:
        for byte in range(256):
            if f"<0x{byte:02X}>" not in known:
                raise ModelError(
                    f"the model's vocabulary has no token <0x{byte:02X}>, so not every text has "
                    "tokens",
                    hint=FIT,
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
                    hint=FIT,
                )
            seen.add(text)
        return known

    @property
    def longest_token(self) -> int:
        """Bytes of the longest token: no text has fewer tokens than its bytes divided by it."""
        return max((len(text.encode()) for text in self.tokens), default=1) or 1

    def text(self, token: int | None) -> str:
        """Return how a token is spelled; "" for None."""
        return "" if token is None else self.tokens[token]


def check_kind(kind: object) -> None:
    """Refuse a kind that is not one of :data:`KINDS`.

    Raises:
        ModelError: It is none.
    """
    if kind not in KINDS:
        raise ModelError(
            f"the model has a vocabulary of the unknown kind {str(kind)[:80]!r}",
            hint=f"Known kinds: {', '.join(KINDS)}.",
        )

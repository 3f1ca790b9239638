"""What a model's file says of its tokens, checked before anybody's prompt needs it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import ArrayValue
from p2pnode.errors import ModelError
from p2pnode.text.specials import CONTROL

PRE_TOKENIZERS: Final = ("gpt-2", "smollm")
"""Ways to cut text before merging that are known; another would give wrong tokens in silence."""

MAX_TEMPLATE: Final = 256 * 1024
"""Characters of a chat template: the longest that are shipped have some 30,000."""

_TURN_MARKS: Final = frozenset(
    {
        *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>"),
        *("<|endoftext|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
        *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>"),
        *("<|assistant|>", "<|end|>", "<|end_of_turn|>", "<|start|>", "<|message|>", "<|return|>"),
        *("<|channel|>", "<|call|>", "[INST]", "[/INST]", "<EOT>"),
        *("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
        *(f"<\uff5c{one}\u2581of\u2581sentence\uff5c>" for one in ("begin", "end")),
    }
)
"""Tokens that mark turns in the families of models that are shipped. Some files call them ordinary
or user-defined; then any text could forge turns. llama.cpp mends such files by spelling, too."""

_TAG: Final = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]+\]")
_KEY: Final = "tokenizer.ggml."
_FIT: Final = "Use another file of this model: this one was converted wrongly."


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One model's tokens, as its file has them.

    Attributes:
        tokens: Each token's text in GPT-2's byte alphabet, by id; control tokens as they are.
        merges: Pairs to merge, best first, each two texts with a space between.
        kinds: Each token's type as GGUF has it: 3 is control, 4 user-defined. What marks turns,
            and what the file itself calls a beginning or an end, is control whatever it says.
        pre: How text is cut before merging.
        template: The chat template, or "" where the model has none.
        bos: Id of the begin-of-text token, or None.
        eos: Id of the end-of-text token, or None.
        add_bos: Whether every text starts with ``bos``.
        ends: Ids that the file says end an answer.

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

    def __post_init__(self) -> None:
        if len(self.kinds) != len(self.tokens):
            raise ModelError(
                f"the vocabulary has {len(self.tokens)} tokens and {len(self.kinds)} types",
                hint=_FIT,
            )
        if self.pre not in PRE_TOKENIZERS:
            raise ModelError(
                f"the model cuts its text in a way this node does not know ({self.pre!r})",
                hint=f"Known pre-tokenizers: {', '.join(PRE_TOKENIZERS)}.",
            )
        object.__setattr__(self, "kinds", self._mended())  # frozen for everybody else
        known = self._distinct()
        for merge in self.merges:
            left, between, right = merge.partition(" ")
            whole = left + right
            if not between or left not in known or right not in known or whole not in known:
                raise ModelError(
                    f"the model's vocabulary is broken: it merges {merge[:80]!r}, and has not all "
                    "three tokens of that",
                    hint=_FIT,
                )
        if len(self.template) > MAX_TEMPLATE:
            raise ModelError(
                f"the model's chat template has {len(self.template)} characters; "
                f"{MAX_TEMPLATE} is the most"
            )

    def _mended(self) -> tuple[int, ...]:
        named = {*self.ends, self.bos, self.eos}
        return tuple(
            CONTROL
            if kind != CONTROL
            and (text in _TURN_MARKS or (token in named and _TAG.fullmatch(text)))
            else kind
            for token, (text, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
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
        model = file.metadata.get(f"{_KEY}model")
        if model != "gpt2":
            what = (
                "no vocabulary" if model is None else f"a vocabulary of the unknown kind {model!r}"
            )
            raise ModelError(
                f"{file.path.name} has {what}",
                hint="Only byte-level BPE vocabularies (gpt2) can be read.",
            )
        for key, what in (
            ("tokens", "no tokens"),
            ("token_type", "no types of its tokens, so control tokens are not known"),
            ("merges", "no merges, so no text can be cut into its tokens"),
        ):
            if not isinstance(file.metadata.get(_KEY + key), ArrayValue):
                raise ModelError(f"{file.path.name} has {what} ({_KEY}{key})", hint=_FIT)
        tokens = file.texts(f"{_KEY}tokens")
        ids = {key: _token(file, key, len(tokens)) for key in ("bos", "eos", "eot", "eom")}
        try:
            return cls(
                tokens=tokens,
                merges=file.texts(f"{_KEY}merges"),
                kinds=file.integers(f"{_KEY}token_type"),
                pre=file.text(f"{_KEY}pre", "default"),
                template=file.text("tokenizer.chat_template", ""),
                bos=ids["bos"],
                eos=ids["eos"],
                add_bos=file.metadata.get(f"{_KEY}add_bos_token", False) is True,
                ends=tuple(
                    sorted({one for key in ("eos", "eot", "eom") if (one := ids[key]) is not None})
                ),
            )
        except ModelError as error:
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


def _token(file: GgufFile, key: str, count: int) -> int | None:
    """Return a token's id; one that does not exist, or is no number, names nothing."""
    value = file.metadata.get(f"{_KEY}{key}_token_id")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < count:
        return None
    return value

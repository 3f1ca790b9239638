"""Text to tokens and back, as the model's own file says.

Byte-level BPE from the metadata of a GGUF file, merged by the ``tokenizers`` library; chat
templates by jinja2 in its sandbox, since a template is a program inside a file that came from
elsewhere. Both are imported when a tokenizer is first built or used: a node that only lends
layers needs neither.
"""

import codecs
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as BpeTokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

Message: TypeAlias = Mapping[str, str]
"""``{"role": "user", "content": "..."}``."""

_CONTROL: Final = 3
_USER_DEFINED: Final = 4


class Tokenizer:
    """One model's tokens.

    Args:
        tokens: Each token's text in GPT-2's byte alphabet, by id.
        merges: Pairs to merge, best first, each two texts with a space between.
        kinds: Each token's type as GGUF has it: 3 is control, 4 user-defined.
        pre: Name of the pre-tokenizer.
        template: The chat template, or "" where the model has none.
        bos: Id of the begin-of-text token, or None.
        eos: Id of the end-of-text token, or None.
        add_bos: Whether every text starts with ``bos``.

    Raises:
        ModelError: The vocabulary is of an unknown kind.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str],
        merges: Sequence[str],
        kinds: Sequence[int],
        pre: str,
        template: str = "",
        bos: int | None = None,
        eos: int | None = None,
        add_bos: bool = False,
    ) -> None:
        if len(kinds) != len(tokens):
            raise ModelError(f"the vocabulary has {len(tokens)} tokens and {len(kinds)} types")
        self._tokens = tokens
        self._kinds = kinds
        self._template = template
        self._bos = bos
        self._eos = eos
        self._add_bos = add_bos and bos is not None
        self._bpe = _build(tokens, merges, kinds, pre)

    @classmethod
    def from_gguf(cls, path: Path) -> Self:
        """Build the tokenizer that a model's file describes.

        Raises:
            ModelError: The file is broken, or its vocabulary of an unknown kind.
        """
        with GgufFile(path) as file:
            model = file.text("tokenizer.ggml.model", "")
            if model != "gpt2":
                raise ModelError(
                    f"{path.name} has a vocabulary of the unknown kind {model!r}",
                    hint="Only byte-level BPE vocabularies (gpt2) can be read.",
                )
            tokens = file.texts("tokenizer.ggml.tokens")
            bos = file.metadata.get("tokenizer.ggml.bos_token_id")
            eos = file.metadata.get("tokenizer.ggml.eos_token_id")
            return cls(
                tokens=tokens,
                merges=file.texts("tokenizer.ggml.merges"),
                kinds=file.integers("tokenizer.ggml.token_type"),
                pre=file.text("tokenizer.ggml.pre", "default"),
                template=file.text("tokenizer.chat_template", ""),
                bos=bos if isinstance(bos, int) and 0 <= bos < len(tokens) else None,
                eos=eos if isinstance(eos, int) and 0 <= eos < len(tokens) else None,
                add_bos=file.metadata.get("tokenizer.ggml.add_bos_token", False) is True,
            )

    def __len__(self) -> int:
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; control tokens written out in it are recognised."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        if self._add_bos and self._bos is not None and ids[:1] != [self._bos]:
            return [self._bos, *ids]
        return ids

    def count(self, text: str) -> int:
        """Return how many positions ``text`` takes in the context."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Return the text of ``ids``; broken UTF-8 becomes U+FFFD.

        Control tokens, such as the end of a turn, appear only if ``control`` is true.
        """
        return b"".join(self._bytes(token, control) for token in ids).decode("utf-8", "replace")

    def decoder(self) -> "IncrementalDecoder":
        """Return a decoder for tokens that come one by one."""
        return IncrementalDecoder(lambda token: self._bytes(token, False))

    def chat(self, messages: Sequence[Message]) -> str:
        """Write a conversation as the model was taught to read it, up to its turn to speak.

        Raises:
            ModelError: The model has no chat template, or the template refuses the messages.
        """
        if not self._template:
            raise ModelError(
                "this model has no chat template", hint="Give it plain text to continue instead."
            )
        try:
            return self._render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=True,
                bos_token=self._text(self._bos),
                eos_token=self._text(self._eos),
            )
        except Exception as error:  # a template is a foreign program: it may raise anything
            raise ModelError(f"the model's chat template cannot be used: {error}") from error

    @cached_property
    def _render(self) -> Callable[..., str]:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        return environment.from_string(self._template).render

    def _text(self, token: int | None) -> str:
        return "" if token is None else self._tokens[token]

    def _bytes(self, token: int, control: bool) -> bytes:
        if not 0 <= token < len(self._tokens):
            return "\ufffd".encode()
        text = self._tokens[token]
        if self._kinds[token] == _CONTROL:
            return text.encode() if control else b""
        if self._kinds[token] == _USER_DEFINED:
            return text.encode()
        return b"".join(_BYTE_OF.get(letter) or letter.encode() for letter in text)


class IncrementalDecoder:
    """Turns tokens into text as they come, never showing half a character."""

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that this token completes; may be empty."""
        return self._utf8.decode(self._bytes_of(token))

    def finish(self) -> str:
        """Return what was left incomplete, as U+FFFD."""
        return self._utf8.decode(b"", final=True)


def byte_alphabet() -> dict[str, bytes]:
    """Return the byte of each letter of GPT-2's alphabet.

    Printable bytes stand for themselves; the others, in order, for the letters from U+0100 on.
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    letters |= {chr(0x100 + number): byte for number, byte in enumerate(others)}
    return {letter: bytes([byte]) for letter, byte in letters.items()}


_BYTE_OF: Final = byte_alphabet()


def _build(
    tokens: Sequence[str], merges: Sequence[str], kinds: Sequence[int], pre: str
) -> "BpeTokenizer":
    from tokenizers import AddedToken, Tokenizer as BpeTokenizer
    from tokenizers.models import BPE

    split = _pre_tokenizer(pre)
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        bpe = BpeTokenizer(BPE({text: token for token, text in enumerate(tokens)}, pairs))
    except Exception as error:  # the library raises bare Exception for a broken vocabulary
        raise ModelError(f"the model's vocabulary is broken: {error}") from error
    bpe.pre_tokenizer = split
    added = [
        AddedToken(text, special=kind == _CONTROL, normalized=False)
        for text, kind in zip(tokens, kinds, strict=True)
        if kind in {_CONTROL, _USER_DEFINED}
    ]
    bpe.add_special_tokens([token for token in added if token.special])
    bpe.add_tokens([token for token in added if not token.special])
    return bpe


def _pre_tokenizer(name: str) -> "PreTokenizer":
    """Return how text is cut before merging; a wrong cut gives wrong tokens silently."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence as Chain

    known: dict[str, Callable[[], PreTokenizer]] = {
        "smollm": lambda: Chain(
            [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
        ),
        "gpt-2": lambda: ByteLevel(add_prefix_space=False),
    }
    if name not in known:
        raise ModelError(
            f"the model cuts its text in a way this node does not know ({name!r})",
            hint=f"Known pre-tokenizers: {', '.join(known)}.",
        )
    return known[name]()

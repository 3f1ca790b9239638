"""Text to tokens and back, as the model's own file says.

Byte-level BPE by the ``tokenizers`` library, SentencePiece's by us, chat templates by jinja2.
Libraries are imported when a tokenizer is built or used: a node that only lends layers needs none.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from p2pnode.terminal import whole
from p2pnode.text.bpe import Bpe
from p2pnode.text.detokenizer import Detokenizer, IncrementalDecoder, byte_alphabet
from p2pnode.text.history import Message
from p2pnode.text.marked import Marked
from p2pnode.text.sentence_pieces import SPACE, SentencePieces
from p2pnode.text.specials import Specials
from p2pnode.text.stored_vocabulary import read_vocabulary
from p2pnode.text.template import ChatTemplate, Clock
from p2pnode.text.tool_calls.formats import ToolFormat
from p2pnode.text.vocabulary import BYTE_LEVEL, Vocabulary

__all__ = ["IncrementalDecoder", "Message", "Tokenizer", "byte_alphabet"]


class Tokenizer:
    """One model's tokens; the arguments are those of :class:`~p2pnode.text.vocabulary.Vocabulary`.

    Args:
        clock: What a template is told when it asks for the date. The room reads no clock by
            itself; today's date is the default here, for whoever uses a tokenizer without a node.
        given: The fields of a vocabulary.

    Attributes:
        longest_token: Bytes of the longest token.

    Raises:
        ModelError: The vocabulary is broken, or of an unknown kind.
    """

    def __init__(self, *, clock: Clock = datetime.now, **given: Any) -> None:
        self._build(Vocabulary(**given), clock)

    def _build(self, vocabulary: Vocabulary, clock: Clock) -> None:
        self.vocabulary = vocabulary
        self.longest_token = vocabulary.longest_token
        self._specials = Specials(vocabulary.tokens, vocabulary.kinds)
        kind = Bpe if vocabulary.kind == BYTE_LEVEL else SentencePieces
        self._plain: Bpe | SentencePieces = kind(vocabulary, self._specials)
        self._template = ChatTemplate(vocabulary, self._specials, clock)
        self._detokenizer = Detokenizer.of(vocabulary)

    @classmethod
    def from_model(cls, path: Path, *, clock: Clock = datetime.now) -> Self:
        """Build the tokenizer of the model at ``path``; ``clock`` is for its template.

        Raises:
            ModelError: The model is broken, or its vocabulary of an unknown kind.
        """
        made = cls.__new__(cls)
        cls._build(made, read_vocabulary(path), clock)  # it is checked already
        return made

    def __len__(self) -> int:
        return len(self.vocabulary.tokens)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        goes_on: bool = False,
    ) -> Marked:
        """Write a conversation as the model was taught to read it, up to its turn to speak.

        With ``goes_on`` the last message, a text, is the beginning of what it says.

        The text knows what in it the template wrote: only that becomes control tokens.

        Raises:
            UserError: A message is none, or a call in it.
            ModelError: The model has no chat template, or the template refuses the messages.
        """
        return self._template.render(messages, tools=tools, documents=documents, goes_on=goes_on)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``: what :meth:`chat` wrote, or plain text.

        Control tokens are recognised where the template wrote them; in plain text never.
        """
        plain = str.__str__(text)
        ids: list[int] = []
        at = 0
        for special in self._specials.find(text):
            ids += self._plain_ids(plain[at : special.start], ids)
            ids.append(special.token)
            at = special.stop
        ids += self._plain_ids(plain[at:], ids)
        bos = self.vocabulary.bos
        if self.vocabulary.add_bos and bos is not None and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def _plain_ids(self, text: str, before: Sequence[int]) -> list[int]:
        """Return the ids of text that stands at the beginning, or behind a special token."""
        if before and self._strips(before[-1]):
            text = text.lstrip(" \t\n\v\f\r")
        if not text:
            return []
        return self._plain.encode(self._prefix(text, before) + whole(text))

    def _strips(self, token: int) -> bool:
        """Whether a special token takes the white space behind it with it."""
        known = self.vocabulary
        return token in known.stripping or (known.strips and self._specials.strips(token))

    def _prefix(self, text: str, before: Sequence[int]) -> str:
        """Return the space that stands before a text, where there is any."""
        known = self.vocabulary
        if not known.space_prefix or (known.prefix_once and before):
            return ""
        return "" if known.prefix_spared and text[:1] in (" ", SPACE) else " "

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: those of the file, and the template's end of a turn."""
        end = self._template.end_of_turn if self.vocabulary.template else None
        return frozenset(self.vocabulary.ends) | (frozenset() if end is None else {end})

    @property
    def tool_format(self) -> ToolFormat | None:
        """How the model's template teaches to write calls of tools; None: not, or not known."""
        return self._template.tool_format

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Return the text of ``ids``; see :meth:`p2pnode.text.detokenizer.Detokenizer.decode`."""
        return self._detokenizer.decode(ids, control=control)

    def decoder(self, after: int | None = None) -> IncrementalDecoder:
        """Return a decoder for tokens that come one by one, ``after`` a prompt's last."""
        return self._detokenizer.decoder(after=after)

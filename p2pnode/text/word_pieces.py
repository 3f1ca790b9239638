"""Text to the word pieces of a BERT, by the ``tokenizers`` library and the model's definition."""

from dataclasses import dataclass
from typing import Final

from p2pnode.errors import ModelError, UserError

MOST_CHARACTERS: Final = 32_768
"""Read of a text at the most: 256 pieces of ordinary text have some 1,200, and nobody can interrupt
the library."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text as its model reads it.

    Attributes:
        ids: Its tokens, with the mark at each end.
        is_cut: Whether the text goes on beyond them.
    """

    ids: tuple[int, ...]
    is_cut: bool


class WordPieces:
    """Cuts texts into pieces; any number of threads may use one.

    A text cannot write the marks ``[CLS]`` and ``[SEP]``: what looks like one is text.

    Args:
        definition: The model's ``tokenizer.json``.
        most: Tokens of a text at the most, both marks included.
        vocab: Ids are below this.

    Raises:
        ModelError: The definition is broken, or of a larger vocabulary.
    """

    def __init__(self, definition: bytes, most: int, vocab: int) -> None:
        from tokenizers import Tokenizer

        try:
            self._cutter: Final = Tokenizer.from_buffer(definition)
        except Exception as error:  # the library raises bare Exception for a broken definition
            raise ModelError(f"the model's vocabulary is broken: {str(error)[:200]}") from error
        if self._cutter.get_vocab_size() > vocab:
            raise ModelError(f"the model's vocabulary is larger than {vocab}")
        self._cutter.no_padding()
        self._cutter.enable_truncation(most)
        self._cutter.encode_special_tokens = True

    def encode(self, text: str) -> Pieces:
        """Return the pieces of ``text``, as many as the model reads.

        Raises:
            UserError: It is no text: half a surrogate pair, say.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError("a text has characters that are none", hint="give UTF-8") from error
        found = self._cutter.encode(text[:MOST_CHARACTERS])
        is_cut = len(text) > MOST_CHARACTERS or bool(found.overflowing)
        return Pieces(tuple(found.ids), is_cut)

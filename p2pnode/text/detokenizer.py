"""Tokens to text."""

import codecs
from collections.abc import Collection, Sequence
from typing import Final, Self

from p2pnode.text.sentence_pieces import SPACE, byte_of
from p2pnode.text.specials import BYTE, SPELLED, STEERING, UNUSED, USER_DEFINED
from p2pnode.text.vocabulary import SENTENCE_PIECES, Vocabulary


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
_NO_TEXT: Final = STEERING | {UNUSED}


class Detokenizer:
    """Writes the tokens of one vocabulary.

    Args:
        tokens: Each token's text, by id.
        kinds: Each token's type, likewise.
        kind: Of the vocabulary.
        space_prefix: Whether a space was put before every text.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        kinds: Sequence[int],
        kind: str,
        *,
        space_prefix: bool,
    ) -> None:
        self._tokens = tokens
        self._kinds = kinds
        self._is_of_pieces = kind == SENTENCE_PIECES
        self._space_prefix = space_prefix

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Self:
        """Return what writes a vocabulary's tokens; it keeps no more of it than that takes."""
        return cls(
            vocabulary.tokens,
            vocabulary.kinds,
            vocabulary.kind,
            space_prefix=vocabulary.space_prefix,
        )

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Return the text of ``ids``: what :meth:`decoder` gives piece by piece.

        Broken UTF-8 becomes U+FFFD; a character that the last tokens only begin is left out.
        Control tokens, such as the end of a turn, appear only if ``control`` is true.
        """
        decoder = self.decoder(control=control)
        return "".join(decoder.push(token) for token in ids)

    def decoder(
        self,
        *,
        control: bool = False,
        after: int | None = None,
        marks: Collection[str] = frozenset(),
    ) -> "IncrementalDecoder":
        """Return a decoder for tokens that come one by one.

        Args:
            control: Whether to show control tokens.
            after: The token before the first, such as a prompt's last. Where it ends a text, or is
                None, the space that the vocabulary puts before a text is not shown.
            marks: Spellings of control tokens that are shown in any case, such as those that a
                parser of tool calls looks for (:func:`.tool_calls.formats.marks`).
        """
        return IncrementalDecoder(self, control=control, after=after, marks=marks)

    def ends_text(self, token: int | None) -> bool:
        """Whether a text that comes after ``token`` begins with a space that nobody wrote."""
        return self._space_prefix and (token is None or self._is_spelled(token))

    def in_text(self, token: int) -> bool:
        """Whether ``token`` was made of text, and did not stand for its own spelling."""
        return not self._is_spelled(token)

    def is_control(self, token: int) -> bool:
        """Whether ``token`` steers the model, and never comes of what somebody said."""
        return 0 <= token < len(self._kinds) and self._kinds[token] in STEERING

    def _is_spelled(self, token: int) -> bool:
        return 0 <= token < len(self._kinds) and self._kinds[token] in SPELLED

    def bytes_of(
        self, token: int, *, control: bool = False, marks: Collection[str] = frozenset()
    ) -> bytes:
        """Return the bytes that a token stands for, which may be part of a character."""
        if not 0 <= token < len(self._tokens):
            return "\ufffd".encode()
        text, kind = self._tokens[token], self._kinds[token]
        if kind in STEERING:
            return text.encode() if control or text in marks else b""
        if self._is_of_pieces:
            return bytes([byte_of(text)]) if kind == BYTE else text.replace(SPACE, " ").encode()
        if kind == USER_DEFINED:
            return text.encode()
        return b"".join(_BYTE_OF.get(letter) or letter.encode() for letter in text)


class IncrementalDecoder:
    """Turns tokens into text as they come, never showing half a character.

    What is incomplete at the end is never shown: an answer that its limit cuts within a character
    ends before that character.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        *,
        control: bool,
        after: int | None,
        marks: Collection[str] = frozenset(),
    ) -> None:
        self._detokenizer = detokenizer
        self._control = control
        self._marks = marks
        self._starts = detokenizer.ends_text(after)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that this token completes; may be empty."""
        data = self._detokenizer.bytes_of(token, control=self._control, marks=self._marks)
        if self._starts and self._detokenizer.in_text(token):
            data = data.removeprefix(b" ")
        self._starts = self._detokenizer.ends_text(token)
        return self._utf8.decode(data)


def token_bytes(vocabulary: Vocabulary) -> list[bytes]:
    """Return the bytes of each token, by id; none for those that no text is made of."""
    detokenizer = Detokenizer.of(vocabulary)
    return [
        b"" if kind in _NO_TEXT else detokenizer.bytes_of(token)
        for token, kind in enumerate(vocabulary.kinds)
    ]

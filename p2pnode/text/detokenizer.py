"""Tokens to text."""

import codecs
from collections.abc import Callable, Sequence
from typing import Final

from p2pnode.text.specials import CONTROL, USER_DEFINED


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


class Detokenizer:
    """Writes the tokens of one vocabulary.

    Args:
        tokens: Each token's text, by id.
        kinds: Each token's type, likewise.
    """

    def __init__(self, tokens: Sequence[str], kinds: Sequence[int]) -> None:
        self._tokens = tokens
        self._kinds = kinds

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Return the text of ``ids``: what :meth:`decoder` gives piece by piece.

        Broken UTF-8 becomes U+FFFD; a character that the last tokens only begin is left out.
        Control tokens, such as the end of a turn, appear only if ``control`` is true.
        """
        decoder = self.decoder(control=control)
        return "".join(decoder.push(token) for token in ids)

    def decoder(self, *, control: bool = False) -> "IncrementalDecoder":
        """Return a decoder for tokens that come one by one."""
        return IncrementalDecoder(lambda token: self.bytes_of(token, control=control))

    def bytes_of(self, token: int, *, control: bool = False) -> bytes:
        """Return the bytes that a token stands for, which may be part of a character."""
        if not 0 <= token < len(self._tokens):
            return "\ufffd".encode()
        text = self._tokens[token]
        if self._kinds[token] == CONTROL:
            return text.encode() if control else b""
        if self._kinds[token] == USER_DEFINED:
            return text.encode()
        return b"".join(_BYTE_OF.get(letter) or letter.encode() for letter in text)


class IncrementalDecoder:
    """Turns tokens into text as they come, never showing half a character.

    What is incomplete at the end is never shown: an answer that its limit cuts within a character
    ends before that character.
    """

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Return the text that this token completes; may be empty."""
        return self._utf8.decode(self._bytes_of(token))

"""The tokens that are recognised by their spelling: control tokens and user-defined ones."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pnode.text.marked import DATA, TEMPLATE, marks_of

UNKNOWN_KIND: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
_STEERING: Final = frozenset({UNKNOWN_KIND, CONTROL})


@dataclass(frozen=True, slots=True)
class Special:
    """A token found by its spelling, at ``[start, stop)``."""

    start: int
    stop: int
    token: int


class Specials:
    """Finds special tokens in a text: leftmost first, then longest.

    A control token counts only where the template wrote every character of it. A user-defined token
    is text with a token of its own and counts everywhere, as in llama.cpp.
    """

    def __init__(self, tokens: Sequence[str], kinds: Sequence[int]) -> None:
        self._ids: dict[str, int] = {}
        self._steering: set[int] = set()
        for token, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
            if text and kind in _STEERING | {USER_DEFINED}:
                self._ids[text] = token
                if kind in _STEERING:
                    self._steering.add(token)
        self._lengths = sorted({len(text) for text in self._ids}, reverse=True)
        heads = sorted({text[:2] for text in self._ids}, key=len, reverse=True)
        # The first two characters tell most other text apart: a pattern of all is slower.
        self._head = re.compile("|".join(map(re.escape, heads)) or r"(?!)")

    def find(self, text: str) -> Iterator[Special]:
        """Yield the special tokens of ``text`` that count, in order."""
        return self._search(text, b"")

    def find_unsure(self, text: str) -> Iterator[Special]:
        """Yield also those control tokens of which something is of unknown origin, none data."""
        return self._search(text, DATA)

    def is_control(self, token: int) -> bool:
        return token in self._steering

    def _search(self, text: str, barred: bytes) -> Iterator[Special]:
        """Yield what counts; with ``barred``, a control token has nothing of that mark."""
        plain, marks, at = str.__str__(text), marks_of(text), 0
        while head := self._head.search(plain, at):
            start = head.start()
            at = start + 1
            for length in self._lengths:
                token = self._ids.get(plain[start : start + length])
                if token is None:
                    continue
                written = marks[start : start + length]
                counts = barred not in written if barred else not written.strip(TEMPLATE)
                if counts or token not in self._steering:
                    at = start + length
                    yield Special(start, at, token)
                    break

"""The tokens that are recognised by their spelling: control tokens and user-defined ones."""

import re
from collections.abc import Callable, Iterator, Sequence
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

    What the template wrote whole goes first, so that nothing said beside it can take a part of a
    control token away. A control token counts there alone. A user-defined token is text with a
    token of its own and counts everywhere, as in llama.cpp.
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
        plain, marks = str.__str__(text), marks_of(text)

        def is_written(special: Special) -> bool:
            return not marks[special.start : special.stop].strip(TEMPLATE)

        def is_text(special: Special) -> bool:
            return special.token not in self._steering

        at = 0
        for special in self._search(plain, 0, len(plain), is_written):
            yield from self._search(plain, at, special.start, is_text)
            yield special
            at = special.stop
        yield from self._search(plain, at, len(plain), is_text)

    def find_unsure(self, text: str) -> Iterator[Special]:
        """Yield the control tokens of ``text`` of which nothing is known to be data."""
        plain, marks = str.__str__(text), marks_of(text)

        def is_unsure(special: Special) -> bool:
            written = marks[special.start : special.stop]
            return special.token in self._steering and DATA not in written

        return self._search(plain, 0, len(plain), is_unsure)

    def is_control(self, token: int) -> bool:
        return token in self._steering

    def _search(
        self, plain: str, at: int, end: int, counts: Callable[[Special], bool]
    ) -> Iterator[Special]:
        """Yield what counts within ``[at, end)``."""
        while head := self._head.search(plain, at, end):
            start = head.start()
            at = start + 1
            for length in self._lengths:
                token = self._ids.get(plain[start : start + length])
                if token is None or start + length > end:
                    continue
                special = Special(start, start + length, token)
                if counts(special):
                    at = special.stop
                    yield special
                    break

"""The tokens that are recognised by their spelling: control tokens and user-defined ones."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pnode.text.marked import DATA, TEMPLATE, marks_of

UNKNOWN_KIND: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNUSED: Final = 5
BYTE: Final = 6
STEERING: Final = frozenset({UNKNOWN_KIND, CONTROL})
"""Kinds of tokens that text never becomes, and that answers do not show."""

SPELLED: Final = STEERING | {USER_DEFINED}
"""Kinds of tokens that are looked for by their spelling, before anything is cut or merged."""

_WRITTEN: Final = re.compile(TEMPLATE + b"+")
_KEEPING: Final = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""What keeps the white space behind it where others take it, as in Phi-3."""


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
        self._keeping = {token for token, text in enumerate(tokens) if text in _KEEPING}
        for token, (text, kind) in enumerate(zip(tokens, kinds, strict=True)):
            if text and kind in SPELLED:
                self._ids[text] = token
                if kind in STEERING:
                    self._steering.add(token)
        lengths: dict[str, set[int]] = {}
        for text in self._ids:
            lengths.setdefault(text[:2], set()).add(len(text))
        for head in lengths:  # one of two letters is found before the one of its first letter
            lengths[head] |= lengths.get(head[:1], set())
        self._lengths = {head: sorted(many, reverse=True) for head, many in lengths.items()}
        heads = sorted(lengths, key=len, reverse=True)
        # The first two characters tell most other text apart: a pattern of all is slower.
        self._head = re.compile("|".join(map(re.escape, heads)) or r"(?!)")

    def find(self, text: str) -> Iterator[Special]:
        """Yield the special tokens of ``text`` that count, in order."""
        plain, at = str.__str__(text), 0

        def is_text(special: Special) -> bool:
            return special.token not in self._steering

        for written in _WRITTEN.finditer(marks_of(text)):
            for special in self._search(plain, *written.span(), lambda _: True):
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

    def strips(self, token: int) -> bool:
        """Whether a token takes the white space behind it with it, where any of these does."""
        return token not in self._keeping

    def is_control(self, token: int) -> bool:
        return token in self._steering

    def _search(
        self, plain: str, at: int, end: int, counts: Callable[[Special], bool]
    ) -> Iterator[Special]:
        """Yield what counts within ``[at, end)``."""
        while head := self._head.search(plain, at, end):
            start = head.start()
            at = start + 1
            for length in self._lengths[head.group()]:
                token = self._ids.get(plain[start : start + length])
                if token is None or start + length > end:
                    continue
                special = Special(start, start + length, token)
                if counts(special):
                    at = special.stop
                    yield special
                    break

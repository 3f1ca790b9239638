"""The text of an answer as it comes, for whoever looks for calls in it.

A grammar (:mod:`.grammars`) is a generator: it asks the source for what it expects next, yields
pieces, and yields None where it cannot go on before more text has come. So what it finds does not
depend on how the text is cut. What it reads can be taken back, up to the last thing it was sure of.
"""

import re
from collections.abc import Generator
from typing import Final, TypeAlias, TypeVar

from p2pnode.text.overlap import overlap
from p2pnode.text.tool_calls.json_scan import SPACES, JsonScan
from p2pnode.text.tool_calls.pieces import Piece, Text, ToolCall

MOST_CALLS: Final = 128
"""Calls of one answer; what comes behind them is text."""
MOST_SPACES: Final = 256
"""Characters of white space that may stand beside a call; a model may write it without end."""

_T = TypeVar("_T")
Steps: TypeAlias = Generator[Piece | None, None, _T]
"""Pieces, and None where more text is wanted; returns what was found."""

_NOT_SPACE: Final = re.compile(rf"[^{SPACES}]")


class Source:
    """Text that is read from left to right.

    Attributes:
        ended: Whether no more text comes.
    """

    # _before and _text[_start : _at] were read since the last thing that is sure; _text[_at:] is
    # still to read. Where a grammar wants more, that is never more than the beginning of a mark.
    # _fresh: nothing but white space came since the beginning or the last call.
    # _marked: so much of what was read is up to the end of the mark that text_before() found.

    def __init__(self) -> None:
        self.ended = False
        self._before: list[str] = []
        self._text = ""
        self._start = 0
        self._at = 0
        self._fresh = True
        self._marked = 0
        self._calls = 0

    def push(self, piece: str) -> None:
        """Append to the text; work is O(len(piece))."""
        self._before.append(self._text[self._start : self._at])
        self._text = self._text[self._at :] + piece
        self._start = self._at = 0

    # What a grammar asks for

    def text_before(self, mark: str) -> Steps[bool]:
        """Yield the text up to ``mark``; return whether it came.

        White space between the mark and the beginning, or the last call, is read with the mark: it
        is text only if no call follows. Behind the last call that an answer may have, no mark is.
        """
        self.settle()
        if self._fresh:
            yield from self.spaces()
        while True:
            at = -1 if self._calls >= MOST_CALLS else self._text.find(mark, self._at)
            if (text := self._up_to(at, mark)) or (self.ended and not self._calls):
                yield from self._shown(text)
            if at >= 0:
                self._at += len(mark)
                self._marked = self._size()
                return True
            if self.ended:
                return False
            yield None

    def spaces(self) -> Steps[None]:
        """Read white space, as far as a call may have it beside it."""
        left = MOST_SPACES
        while True:
            found = _NOT_SPACE.search(self._text, self._at)
            end = min(len(self._text) if found is None else found.start(), self._at + left)
            left -= end - self._at
            self._at = end
            if found or not left or self.ended:
                return
            yield None

    def follows(self, *words: str) -> Steps[bool]:
        """Read one of ``words``, if one comes next; none may begin with another."""
        while True:
            for word in words:
                if self._text.startswith(word, self._at):
                    self._at += len(word)
                    return True
            rest = self._text[self._at : self._at + max(map(len, words))]
            if self.ended or not any(word.startswith(rest) for word in words):
                return False
            yield None

    def run(self, letters: re.Pattern[str], most: int) -> Steps[str]:
        """Read a run of ``letters``, a pattern of one; return it, or nothing where it is longer."""
        read = ""
        while True:
            while letters.match(self._text, self._at) and len(read) <= most:
                read += self._text[self._at]
                self._at += 1
            if self._at < len(self._text) or self.ended or len(read) > most:
                return read if len(read) <= most else ""
            yield None

    def json_object(self) -> Steps[str | None]:
        """Read a JSON object; return it, or None if what comes next is none."""
        start, scan = self._size(), JsonScan()
        while True:
            end = scan.push(self._text, self._at)
            self._at = len(self._text) if end is None else end
            if end is not None:
                return self._read()[start:]
            if scan.failed or self.ended:
                return None
            yield None

    # What it makes of it

    def settle(self) -> None:
        """What was read until now is not taken back any more."""
        self._before.clear()
        self._start = self._at

    def take_back(self) -> None:
        """What was read since the last settled thing is to be read once more."""
        if self._before:
            self._text = "".join((*self._before, self._text[self._start :]))
            self._before.clear()
            self._start = 0
        self._at = self._start

    def called(self, call: ToolCall) -> Steps[None]:
        """Yield a call, made of what was read; white space behind it is not text yet."""
        self.settle()
        self._calls += 1
        self._fresh = True
        yield call

    def no_call(self) -> Steps[None]:
        """Yield the mark as text, and read once more what came behind it: it is no call."""
        self.take_back()
        self._at += self._marked
        yield from self._shown("")

    def skip(self, *words: str) -> Steps[None]:
        """Read one of ``words`` with the white space before it, or neither."""
        yield from self.spaces()
        if (yield from self.follows(*words)):
            self.settle()
        else:
            self.take_back()

    @property
    def is_full(self) -> bool:
        """Whether the answer has all the calls that it may have."""
        return self._calls >= MOST_CALLS

    def _up_to(self, at: int, mark: str) -> str:
        """Return the text before what is, or may become, a mark, if there is any."""
        end = at
        if at < 0:
            rest = self._text[max(self._at, len(self._text) - len(mark)) :]
            end = len(self._text) - (0 if self.ended or self.is_full else overlap(rest, mark))
        return self._text[self._at : end]

    def _shown(self, text: str) -> Steps[None]:
        """Yield as text what was read, and ``text``, which comes next."""
        shown = self._read() + text
        self._at += len(text)
        self.settle()
        if shown:
            self._fresh = False
            yield Text(shown)

    def _read(self) -> str:
        return "".join((*self._before, self._text[self._start : self._at]))

    def _size(self) -> int:
        return sum(map(len, self._before)) + self._at - self._start

"""Markdown that is shown while it comes: nothing that was shown is ever shown anew.

So nothing flickers, no answer is too long, and what is selected and copied is one line where the
model wrote one. What a sign means is held back until it is known, which a line's end decides at the
latest: a span longer than :data:`LONGEST` is none. How a text is cut into pieces changes nothing.

Known are headings, lists, quotes, rules, code in fences and in lines, bold and italic. Everything
else, links and tables among it, is shown as it was written.
"""

import enum
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

LONGEST: Final = 400
"""Characters between two signs that belong together, and of a line of a fence. A guess: longer than
a phrase that somebody stresses."""


class Style(enum.Flag):
    """How a piece looks."""

    PLAIN = 0
    BOLD = enum.auto()
    ITALIC = enum.auto()
    CODE = enum.auto()
    HEADING = enum.auto()
    FAINT = enum.auto()


class Piece(NamedTuple):
    """Some text in one style."""

    text: str
    style: Style


class _Line(enum.Enum):
    """What the line that is read is."""

    UNKNOWN = enum.auto()
    WORDS = enum.auto()
    HEADING = enum.auto()
    CODE = enum.auto()


_UNDECIDED: Final = re.compile(r" *(?:#{0,6} *|[-+*_ ]*|>|`{1,2}|~{1,2}|`{3,}[^`]*|~{3,}.*)")
_FENCE: Final = re.compile(r" {0,3}(?:(`{3,})[^`]*|(~{3,}).*)")
_FENCE_END: Final = re.compile(r" {0,3}(`+|~+) *")
_FENCE_END_UNDECIDED: Final = re.compile(r" {0,3}(?:`*|~*) *")
_RULE: Final = re.compile(r" {0,3}([-*_])(?: *\1){2,} *")
_HEADING: Final = re.compile(r" {0,3}#{1,6} +")
_BULLET: Final = re.compile(r"( *)[-+*] +(?=\S)")
_QUOTE: Final = re.compile(r" {0,3}> ?")
_SPECIAL: Final = re.compile(r"[\\`*_]")
_PUNCTUATION: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_RULE_DRAWN: Final = "\u2500" * 8


class Markdown:
    """Turns an answer's pieces into pieces that have a style."""

    def __init__(self) -> None:
        self._held = ""  # of the line that is read: what is not decided yet
        self._line = _Line.UNKNOWN
        self._fence = ""  # the signs that opened the code, or nothing
        self._before = ""  # the last character before what is held; empty at a line's beginning

    def push(self, text: str) -> list[Piece]:
        """Take more of an answer; return what of it can be shown."""
        self._held += text
        shown: list[Piece] = []
        while True:
            line, end, rest = self._held.partition("\n")
            shown += self._read(line, is_whole=bool(end))
            if not end:
                return shown
            shown.append(Piece("\n", Style.PLAIN))
            self._held, self._line, self._before = rest, _Line.UNKNOWN, ""

    def finish(self) -> list[Piece]:
        """Return what was held back, now that nothing more comes."""
        shown = self._read(self._held, is_whole=True)
        self._held = ""
        return shown

    def _read(self, line: str, *, is_whole: bool) -> list[Piece]:
        """Show what is decided of the rest of a line, and hold the rest of that."""
        shown: list[Piece] = []
        if self._line is _Line.UNKNOWN:
            if self._is_undecided(line, is_whole=is_whole):
                self._held = line
                return []
            line = self._begin(line, shown)
        if self._line is _Line.CODE:
            if line:
                shown.append(Piece(line, Style.CODE))
            self._held = ""
            return shown
        base = Style.HEADING if self._line is _Line.HEADING else Style.PLAIN
        reader = _Spans(line, base, self._before, is_whole=is_whole)
        shown += reader.pieces()
        self._held, self._before = line[reader.at :], reader.before
        return shown

    def _is_undecided(self, line: str, *, is_whole: bool) -> bool:
        if is_whole or len(line) > LONGEST:
            return False
        undecided = _FENCE_END_UNDECIDED if self._fence else _UNDECIDED
        return undecided.fullmatch(line) is not None

    def _begin(self, line: str, shown: list[Piece]) -> str:
        """Decide what a line is; show what says so, and return the words behind it."""
        self._line = _Line.CODE if self._fence else _Line.WORDS
        if self._fence:
            return self._code(line, shown)
        if len(line) <= LONGEST and (fence := _FENCE.fullmatch(line)):
            self._fence = fence[1] or fence[2]
            shown.append(Piece(line, Style.FAINT))
            return ""
        if len(line) <= LONGEST and _RULE.fullmatch(line):
            shown.append(Piece(_RULE_DRAWN, Style.FAINT))
            return ""
        if heading := _HEADING.match(line):
            self._line = _Line.HEADING
            return line[heading.end() :]
        if bullet := _BULLET.match(line):
            shown.append(Piece(f"{bullet[1]}\u2022 ", Style.PLAIN))
            return line[bullet.end() :]
        if quote := _QUOTE.match(line):
            shown.append(Piece("\u2502 ", Style.FAINT))
            return line[quote.end() :]
        return line

    def _code(self, line: str, shown: list[Piece]) -> str:
        """Show a fence that ends the code; return a line that is of it."""
        end = _FENCE_END.fullmatch(line) if len(line) <= LONGEST else None
        if end is None or not end[1].startswith(self._fence):
            return line
        self._fence = ""
        shown.append(Piece(line, Style.FAINT))
        return ""


class _Spans:
    """Reads the spans within a line, as far as they are decided.

    Attributes:
        at: How far it came.
        before: The character before that.
    """

    def __init__(self, line: str, base: Style, before: str, *, is_whole: bool) -> None:
        self._line = line
        self._base = base
        self._is_whole = is_whole
        self.at = 0
        self.before = before

    def pieces(self) -> Iterator[Piece]:
        while self.at < len(self._line):
            special = _SPECIAL.search(self._line, self.at)
            start = special.start() if special else len(self._line)
            if start > self.at:
                yield from self._take(start, Piece(self._line[self.at : start], self._base))
                continue
            decided = self._special()
            if decided is None:
                return
            end, pieces = decided
            yield from self._take(end, *pieces)

    def _take(self, end: int, *pieces: Piece) -> tuple[Piece, ...]:
        self.at, self.before = end, self._line[end - 1]
        return pieces

    def _special(self) -> tuple[int, list[Piece]] | None:
        """Decide what the sign here means: where that ends, and its pieces; None for not yet."""
        sign = self._line[self.at]
        if sign == "\\":
            return self._escape()
        run = self._run(self.at)
        if self.before == sign or run - self.at > _MOST_SIGNS[sign]:
            return self._literally(run)  # at once: a run may be as long as an answer
        if self._is_last(run):
            return None
        return self._code(run) if sign == "`" else self._stress(sign, run)

    def _escape(self) -> tuple[int, list[Piece]] | None:
        if self._is_last(self.at + 1):
            return None
        following = self._line[self.at + 1 : self.at + 2]
        if following in _PUNCTUATION and following:
            return self.at + 2, [Piece(following, self._base)]
        return self._literally(self.at + 1)

    def _code(self, run: int) -> tuple[int, list[Piece]] | None:
        count, start = run - self.at, run
        for close in self._closes("`", count, start):
            if self._is_last(close + count):
                return None
            inner = self._line[start:close]
            if inner[:1] == inner[-1:] == " " and inner.strip():
                inner = inner[1:-1]
            return close + count, [Piece(inner, self._base | Style.CODE)]
        return None if self._may_come(start, count) else self._literally(run)

    def _stress(self, sign: str, run: int) -> tuple[int, list[Piece]] | None:
        count, start = run - self.at, run
        following = self._line[start : start + 1]
        if self.before.isalnum() or not following.strip():
            return self._literally(run)
        for close in self._closes(sign, count, start):
            end = close + count
            if self._is_last(end):
                return None
            if close == start or self._line[close - 1].isspace():
                continue
            if self._line[end : end + 1].isalnum():
                continue
            style = self._base | (Style.PLAIN, Style.ITALIC, Style.BOLD, _BOTH)[count]
            inner = _Spans(self._line[start:close], style, sign, is_whole=True)
            return end, list(inner.pieces())
        return None if self._may_come(start, count) else self._literally(run)

    def _closes(self, sign: str, count: int, start: int) -> Iterator[int]:
        """Yield where a run of just so many signs begins, no further than a span may reach."""
        at = start
        while (at := self._line.find(sign, at, start + LONGEST + 1)) >= 0:
            end = self._run(at)
            is_run = end - at == count or (self._is_last(end) and end - at < count)
            if is_run and (sign == "`" or self._line[at - 1] != "\\"):
                yield at
            at = end

    def _run(self, at: int) -> int:
        """Return where the run of equal signs that begins at ``at`` ends."""
        end = at
        while end < len(self._line) and self._line[end] == self._line[at]:
            end += 1
        return end

    def _is_last(self, end: int) -> bool:
        """Whether more may come right there, which could change what stands before it."""
        return end >= len(self._line) and not self._is_whole

    def _may_come(self, start: int, count: int) -> bool:
        """Whether what closes a span may still come."""
        return not self._is_whole and len(self._line) - start <= LONGEST + count + 1

    def _literally(self, end: int) -> tuple[int, list[Piece]]:
        return end, [Piece(self._line[self.at : end], self._base)]


_MOST_SIGNS: Final = {"`": 20, "*": 3, "_": 3}
"""Of a run that means something."""

_BOTH: Final = Style.BOLD | Style.ITALIC

"""A line at a terminal that cannot move its cursor, such as an editor's shell."""

import codecs
import re
import sys
from contextlib import AbstractContextManager
from typing import Final

from prompt_toolkit.utils import get_cwidth

from p2pnode.interfaces.chat import composing
from p2pnode.interfaces.chat.typed_ahead import TypedAhead
from p2pnode.interfaces.cli.piped_input import checked_text
from p2pnode.terminal import shown

_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|.)?", re.DOTALL)
_ENDS: Final = "\r\n"
_END_OF_INPUT: Final = "\x04"


class DumbLine:
    """Hears a person: what is typed is shown letter by letter, and can be erased so.

    The terminal puts no lines together, which would cut them at 4,095 bytes.
    """

    is_person = True
    is_all = False

    def __init__(self, *, echo: bool) -> None:
        """``echo``: whether to show what is typed; an editor's shell shows it itself."""
        self._echo = echo
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._waiting = ""  # what came behind a line that was sent
        self._line = ""
        self._is_closed = False
        self._ahead = TypedAhead(sys.stdin.fileno())

    def listen(self) -> str | None:
        self._line = ""
        _write("> ")
        while not self._is_sent():
            if self._is_closed:
                return checked_text(self._line) if self._line else None
            if self._waiting.startswith(_END_OF_INPUT):
                self._waiting = self._waiting[1:]
                return None
            self._waiting += self._more()
        return checked_text(self._line)

    def ahead(self) -> AbstractContextManager[None]:
        return self._ahead.reading()

    def forget(self) -> None:
        self._ahead.clear()

    def _more(self) -> str:
        from p2pnode.interfaces.chat.line_reader import next_burst

        data = self._ahead.take() or next_burst(sys.stdin.fileno())
        self._is_closed = not data
        return _SEQUENCE.sub("", self._decoder.decode(data))

    def _is_sent(self) -> bool:
        """Take what waits, up to a line's end that sends the line."""
        while self._waiting:
            letter, rest = self._waiting[0], self._waiting[1:]
            if letter == _END_OF_INPUT and not self._line:
                return False
            self._waiting = rest
            if letter in _ENDS:
                if self._sends(rest):
                    return True
            else:
                self._type(letter)
        return False

    def _sends(self, rest: str) -> bool:
        """End a line; tell whether that sends what was typed, or it goes on."""
        self._show("\n")
        is_pasted = bool(rest) and (rest[0].isprintable() or rest[0] in "\r\n\t")
        if is_pasted:
            self._line += "\n"
            return False
        if composing.is_open(self._line):
            self._line = composing.next_line(self._line)
            return False
        return True

    def _type(self, letter: str) -> None:
        if letter in "\x7f\b":
            self._erase(1)
        elif letter == "\x15":
            self._erase(len(self._line) - self._line.rfind("\n") - 1)
        elif letter >= " " or letter == "\t":
            self._line += letter
            self._show(letter)

    def _erase(self, count: int) -> None:
        for _ in range(min(count, len(self._line))):
            width = max(0, get_cwidth(self._line[-1]))
            self._line = self._line[:-1]
            self._show("\b \b" * width, is_ours=True)

    def _show(self, text: str, *, is_ours: bool = False) -> None:
        if self._echo:
            _write(text if is_ours else shown(text))


def _write(text: str) -> None:
    """Write on standard output, or on standard error where that is no terminal."""
    stream = sys.stdout if sys.stdout.isatty() else sys.stderr
    stream.write(text.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding))
    stream.flush()

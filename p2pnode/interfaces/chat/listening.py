"""What a person says next: at a terminal that edits, at one that does not, or through a pipe."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from p2pnode.interfaces.cli.piped_input import MOST_BYTES, decoded


class Listener(Protocol):
    """Hears what is said.

    Attributes:
        is_person: Whether somebody sits there, who is told how things stand.
        is_all: Whether all that there is to say is said at once.
    """

    is_person: bool
    is_all: bool

    def listen(self) -> str | None:
        """Return what is said next, nothing for nothing said, and None at the end.

        Raises:
            UserError: What was said is no text; more may be said.
            KeyboardInterrupt: Ctrl-C.
        """

    def ahead(self) -> AbstractContextManager[None]:
        """Keep what is said while this lasts apart, to be heard in its turn."""

    def forget(self) -> None:
        """Drop what was said ahead."""


class Piped:
    """What waits in a pipe is read when it is asked for: nobody types there."""

    is_person = False
    is_all = False

    def ahead(self) -> AbstractContextManager[None]:
        return nullcontext()

    def forget(self) -> None: ...


class WholeInput(Piped):
    """All of standard input is one message."""

    is_all = True

    def __init__(self) -> None:
        self._is_read = False

    def listen(self) -> str | None:
        if self._is_read:
            return None
        self._is_read = True
        return decoded(sys.stdin.buffer.read(MOST_BYTES + 1))


class EachLine(Piped):
    """Each line of standard input is a message."""

    def listen(self) -> str | None:
        line = sys.stdin.buffer.readline(MOST_BYTES + 1)
        return decoded(line).rstrip("\n").removesuffix("\r") if line else None

"""A terminal that shows nothing of what is typed while an answer comes, and keeps it for later.

What is typed waits in the terminal and is read at the next prompt, as if it had been typed there.
Ctrl-C and Ctrl-Z still signal. Lines are not put together by the terminal, which would cut them at
4,095 bytes.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_HANDLED = () if sys.platform == "win32" else (signal.SIGCONT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep standard input's terminal quiet, also after a Ctrl-Z, and leave it as it was.

    It is left so by SIGTERM and SIGHUP too, which end the command.
    """
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    import termios

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    old = {number: signal.getsignal(number) for number in _HANDLED}
    for number in _HANDLED:
        if old[number] is not signal.SIG_IGN:
            signal.signal(number, _quieten if number == signal.SIGCONT else _end)
    try:
        _be_quiet(descriptor)
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        with suppress(termios.error):  # it may have been closed
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _be_quiet(descriptor: int) -> None:
    import termios

    with suppress(termios.error):
        modes = termios.tcgetattr(descriptor)
        modes[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON)
        modes[3] |= termios.ISIG
        # A read must not wait: Ctrl-C discards what was announced a moment ago.
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 0, 0
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)


def _quieten(number: int, frame: FrameType | None) -> None:
    """Be quiet again: whoever had the terminal meanwhile made it its own."""
    _be_quiet(sys.stdin.fileno())


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Let further Ctrl-Cs pass while what the first one stopped is put in order."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def is_echoing() -> bool:
    """Tell whether standard input's terminal shows what is typed: an editor's shell does not."""
    if sys.platform == "win32":
        return True
    import termios

    return bool(termios.tcgetattr(sys.stdin.fileno())[3] & termios.ECHO)


def has_editing(environ: "os._Environ[str]" = os.environ) -> bool:
    """Tell whether the terminal can move its cursor, as an edited line needs."""
    return environ.get("TERM", "") not in {"", "dumb", "unknown"}

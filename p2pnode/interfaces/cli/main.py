"""Where ``p2pnode`` begins."""

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SOON = 0.02  # seconds


def main() -> None:
    """Run the command line; a Ctrl-C ends it quietly, even while it is still being imported."""
    sys.unraisablehook = _interrupt_again
    try:
        mend_streams()
        from p2pnode.interfaces.cli.commands import run

        status = run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(_settle(status))


def _settle(status: int) -> int:
    """Return the exit status; from here on a further Ctrl-C changes nothing.

    The second of two would kill the process by its signal while it tears itself down, or print a
    traceback, though everything was done.
    """
    import signal

    while True:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except KeyboardInterrupt:
            status = 130
        else:
            break
    # CPython remembers a Ctrl-C that came while code was run from a string, as each dataclass does,
    # and ends by that signal though it was caught; running such code once more makes it forget.
    exec("")  # noqa: S102
    return status


def mend_streams() -> None:
    """Give a command the three streams that it counts on, however it was started.

    One that was closed is the null device from here on: otherwise the next file or socket would
    get its number, and what is printed would land there. A standard error that is full or whose
    reader has gone is no reason to stop: what is said there is lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number, which is this one
    if not isinstance(sys.stdin, io.TextIOBase):
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if not isinstance(sys.stdout, io.TextIOBase):
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    encoding = sys.stderr.encoding if isinstance(sys.stderr, io.TextIOBase) else "utf-8"
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Forgiving(2, "w", closefd=False)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


class _Forgiving(io.FileIO):
    """A file that takes what it cannot write for written."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data).cast("B"))


def _interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Deliver anew a Ctrl-C that came where nothing can be raised, as in a weakref's callback.

    Python prints a traceback there and goes on, so the Ctrl-C would be lost, and not quietly. In
    here nothing can be raised either, so it comes from another thread, a moment later.
    """
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        import _thread

        _thread.start_new_thread(_interrupt, ())  # threading's start would wait, and be interrupted
    elif os.environ.get("P2PNODE_DEBUG") or sys.stderr is None:
        sys.__unraisablehook__(unraisable)
    else:
        error = type(unraisable.exc_value).__name__
        words = " ".join(f"{error}: {unraisable.exc_value}".split())
        sys.stderr.write(f"p2pnode: an error passed over: {words} (P2PNODE_DEBUG=1 shows where)\n")


def _interrupt() -> None:
    import _thread
    import signal
    import threading
    import time

    time.sleep(_SOON)
    main_thread = threading.main_thread().ident
    if not hasattr(signal, "pthread_kill"):
        _thread.interrupt_main()
    elif main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)

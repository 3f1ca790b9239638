"""Where ``p2pnode`` begins."""

import sys

_SOON = 0.02  # seconds


def main() -> None:
    """Run the command line; a Ctrl-C ends it quietly, even while it is still being imported."""
    sys.unraisablehook = _interrupt_again
    try:
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


def _interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Deliver anew a Ctrl-C that came where nothing can be raised, as in a weakref's callback.

    Python prints a traceback there and goes on, so the Ctrl-C would be lost, and not quietly. In
    here nothing can be raised either, so it comes from another thread, a moment later.
    """
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        import threading

        threading.Timer(_SOON, _interrupt).start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    import signal
    import threading

    main_thread = threading.main_thread().ident
    if main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGINT)

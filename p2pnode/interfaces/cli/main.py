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
    sys.exit(status)


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

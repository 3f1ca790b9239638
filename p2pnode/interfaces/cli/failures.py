"""What ends a command is told in one line, with what to do next; never as a traceback.

``P2PNODE_DEBUG=1`` shows the traceback as well, of whatever is not a person's own mistake.
"""

import os
import sys
import threading
import traceback
from typing import Final

import click

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.output import complain
from p2pnode.node.disk import is_full

DEBUG_VARIABLE: Final = "P2PNODE_DEBUG"

INTERNAL: Final = 70
"""Exit status where the fault is ours: EX_SOFTWARE of sysexits.h."""

_LONGEST: Final = 300  # letters of an error's own words: a line, not a page
_WRITERS: Final = ("click.utils", "p2pnode.interfaces.cli.output")


def tell(error: BaseException) -> int:
    """Say what ended a command, in a line; return the exit status.

    A reader of our output that has gone, as in ``p2pnode peers | head -1``, is no failure.
    """
    error = _leaf(error)
    if isinstance(error, OSError) and _is_of_output(error):
        return _tell_of_output(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        command = getattr(getattr(error, "ctx", None), "command_path", "p2pnode")
        hint = f"{command} --help" if isinstance(error, click.UsageError) else ""
        complain(UserError(_line(error.format_message()), hint=hint))
        return error.exit_code
    if not isinstance(error, UserError):
        _show_traceback(error)
        error, status = _explained(error)
        complain(error)
        return status
    complain(error)
    return error.exit_status


def close_output(status: int) -> int:
    """Write what standard output still holds, so that nothing is left to fail after us."""
    try:
        sys.stdout.flush()
    except OSError as error:
        told = _tell_of_output(error)
        return status or told
    return status


def tell_of_thread(arguments: threading.ExceptHookArgs) -> None:
    """Say in a line what ended a thread; the command goes on."""
    if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
        tell(arguments.exc_value)


def _leaf(error: BaseException) -> BaseException:
    """Return what matters in a group: a person's mistake goes first."""
    leaves = _leaves(error)
    return next((leaf for leaf in leaves if isinstance(leaf, UserError)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]


def _explained(error: BaseException) -> tuple[UserError, int]:
    """Put into words what nobody foresaw: the machine's fault, or ours."""
    hint = f"set {DEBUG_VARIABLE}=1 to see where, and please report it"
    if isinstance(error, MemoryError):
        return UserError("there is not enough memory", hint="close programs, or hold less"), 1
    if isinstance(error, OSError) and (error.filename is not None or is_full(error)):
        where = f"{error.filename}: " if error.filename is not None else ""
        hint = f"look at the disk and at permissions; {DEBUG_VARIABLE}=1 shows where it failed"
        return UserError(_line(f"{where}{error.strerror or error}"), hint=hint), 1
    words = _line(f"{type(error).__name__}: {error}")
    return UserError(f"internal error: {words}", hint=hint), INTERNAL


def _show_traceback(error: BaseException) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def _is_of_output(error: OSError) -> bool:
    """Tell whether it was standard output that failed, not a file or a socket of ours."""
    if error.filename is not None:
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames and frames[-1].f_globals.get("__name__") in _WRITERS:
        return True
    try:
        sys.stdout.flush()  # what could not be written is still there, and fails again
    except OSError:
        return True
    return False


def _tell_of_output(error: OSError) -> int:
    """Give up standard output; say why, but where its reader just had enough."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    if isinstance(error, BrokenPipeError):
        return 0
    what = f"cannot write to standard output: {error.strerror or error}"
    complain(UserError(what, hint="send it somewhere else, or make room"))
    return 1


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."

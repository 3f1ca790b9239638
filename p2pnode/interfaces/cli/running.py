"""Runs trio for a command, and turns its groups of errors back into the one that matters."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from p2pnode.errors import UserError, first_in

_ResultT = TypeVar("_ResultT")
_Ts = TypeVarTuple("_Ts")


def run_trio(main: Callable[[*_Ts], Awaitable[_ResultT]], *arguments: *_Ts) -> _ResultT:
    """Run ``main`` to its end.

    Raises:
        UserError: One of its tasks met a person's mistake.
    """
    try:
        return trio.run(main, *arguments)
    except BaseExceptionGroup as group:
        for kind in (UserError, KeyboardInterrupt):
            if (found := first_in(group, kind)) is not None:
                raise found from group
        raise

"""Runs trio for a command, and turns its groups of errors back into the one that matters."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from p2pnode.errors import UserError

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
            if (found := _first(group, kind)) is not None:
                raise found from group
        raise


def _first(
    group: BaseExceptionGroup[BaseException], kind: type[BaseException]
) -> BaseException | None:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            if (found := _first(error, kind)) is not None:
                return found
        elif isinstance(error, kind):
            return error
    return None

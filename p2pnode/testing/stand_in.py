"""An object with some methods replaced, where the object itself may be compiled and takes none."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class _StandIn:
    def __init__(self, whole: object, methods: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(methods)
        self._whole = whole

    def __getattr__(self, name: str) -> object:
        return getattr(self._whole, name)


def stand_in(whole: T, **methods: Callable[..., Any]) -> T:
    """Return what does all that ``whole`` does, but for ``methods``; who holds it is not told."""
    return cast(T, _StandIn(whole, methods))

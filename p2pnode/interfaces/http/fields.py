"""The parameters of a request, read one by one, each refused by its name."""

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from p2pnode.interfaces.http.aside import aside
from p2pnode.interfaces.http.errors import ApiError, wrong

_SHOWN = 60  # characters of a value in a message

_Read = TypeVar("_Read")


class Fields:
    """Reads parameters; what is null counts as left out, as the APIs have it."""

    def __init__(
        self, body: Mapping[str, Any], prefix: str = "", *, is_large: bool = False
    ) -> None:
        """``prefix`` stands before a parameter's name in messages, e.g. ``options.``.

        ``is_large`` says that to read them all may take long.
        """
        self._body = body
        self._prefix = prefix
        self._is_large = is_large

    async def read_by(self, reader: Callable[["Fields"], _Read]) -> _Read:
        """Return what ``reader`` makes of the parameters; a thread does it where they are many."""
        return await aside(lambda: reader(self)) if self._is_large else reader(self)

    def has(self, name: str) -> bool:
        return self._body.get(name) is not None

    def value(self, name: str) -> Any:  # noqa: ANN401 -- JSON
        return self._body.get(name)

    def number(self, name: str, low: float, high: float, default: float) -> float:
        value = self._body.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "must be a number")
        if not low <= value <= high:  # nor is what is no number: nan
            raise self._wrong(name, f"must be between {low:g} and {high:g}")
        return float(value)

    def whole(self, name: str, low: int, high: int, default: int | None) -> int | None:
        value = self._body.get(name)
        if value is None:
            return default
        if type(value) is not int:
            raise self._wrong(name, "must be a whole number")
        if not low <= value <= high:
            raise self._wrong(name, f"must be between {low} and {high}")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self._body.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "must be true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._body.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise self._missing(name)
        if not isinstance(value, str):
            raise self._wrong(name, "must be a string")
        return value

    def choice(self, name: str, options: Sequence[str], default: str) -> str:
        value = self.text(name, default)
        if value not in options:
            raise self._wrong(name, f"must be one of {', '.join(options)}")
        return value

    def texts(self, name: str) -> list[str]:
        """Read a string or a list of strings; nothing is an empty list."""
        value = self._body.get(name)
        if value is None:
            return []
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise self._wrong(name, "must be a string or a list of strings")
        return texts

    def items(self, name: str, *, is_needed: bool = False) -> list[Any] | None:
        value = self._body.get(name)
        if value is None and not is_needed:
            return None
        if value is None:
            raise self._missing(name)
        if not isinstance(value, list) or (is_needed and not value):
            raise self._wrong(name, f"must be a list{' that is not empty' if is_needed else ''}")
        return value

    def inner(self, name: str) -> "Fields":
        """Read an object; nothing is an empty one."""
        value = self._body.get(name)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, "must be an object")
        return Fields(value or {}, f"{self._prefix}{name}.")

    def refuse_unknown(self, known: Collection[str]) -> None:
        unknown = next((name for name in self._body if name not in known), None)
        if unknown is not None:
            raise ApiError(
                400,
                f"unknown parameter: {self._prefix}{unknown[:_SHOWN]}",
                code="unknown_parameter",
                param=unknown[:_SHOWN],
            )

    def refuse(self, name: str, why: str) -> None:
        """Refuse a parameter that is known and cannot be met, unless it asks for nothing."""
        if self._body.get(name) not in (None, False, [], {}, ""):
            raise ApiError(
                400,
                f"{self._prefix}{name} cannot be had here: {why}",
                code="unsupported_parameter",
                param=name,
            )

    def _missing(self, name: str) -> ApiError:
        named = f"{self._prefix}{name}"
        return ApiError(400, f"{named} is missing", code="missing_parameter", param=named)

    def _wrong(self, name: str, what: str) -> ApiError:
        shown = _BRIEF.repr(self._body.get(name))[:_SHOWN]
        return wrong(f"{self._prefix}{name}", f"{self._prefix}{name} {what}, not {shown}")


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 2 * _SHOWN

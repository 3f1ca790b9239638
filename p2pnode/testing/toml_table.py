"""Reading TOML strictly: every key is known, every value possible, every complaint says where."""

import difflib
import math
from pathlib import Path
from typing import NoReturn, TypeVar

from p2pnode.errors import ConfigError
from p2pnode.toml.file import read_toml
from p2pnode.toml.lines import KeyLines

_Word = TypeVar("_Word", bound=str)
_SHOWN = 60  # letters of a value in a complaint


class TomlTable:
    """One table of a TOML file, from which keys are taken until none is left.

    Every method that takes a key raises :class:`ConfigError` naming file and key if the value is
    missing (and there is no default), of another type, or out of bounds.
    """

    def __init__(
        self, source: str, where: str, values: dict[str, object], lines: KeyLines | None = None
    ) -> None:
        """``source`` names the file and ``where`` the table in it, for complaints."""
        self._source = source
        self._lines = lines
        self._where = where
        self._values = values
        self._known: list[str] = []

    @classmethod
    def read(cls, path: Path) -> "TomlTable":
        """Read a file.

        Raises:
            ConfigError: It cannot be read, or is no TOML.
        """
        file = read_toml(path)
        return cls(str(path), "", file.values, file.lines)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        return self._bounded(key, self._take(key, default), low, high)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        return self._whole(key, self._take(key, default), low, high)

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.refuse(key, f"is true or false, not {_shown(value)}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        return self._word(key, self._take(key, default))

    def numbers(
        self, key: str, low: float, high: float, default: tuple[float, ...] | None = None
    ) -> tuple[float, ...]:
        return tuple(self._bounded(key, value, low, high) for value in self._list(key, default))

    def integers(
        self, key: str, low: int, high: int, default: tuple[int, ...] | None = None
    ) -> tuple[int, ...]:
        return tuple(self._whole(key, value, low, high) for value in self._list(key, default))

    def flags(self, key: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        values = self._list(key, default)
        if not all(isinstance(value, bool) for value in values):
            self.refuse(key, "is a list of true and false")
        return tuple(bool(value) for value in values)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._word(key, value) for value in self._list(key, None))

    def words(self, key: str, known: tuple[_Word, ...]) -> tuple[_Word, ...]:
        """Return those of the ``known`` words that are listed, in their order; all by default."""
        listed = self._list(key, known)
        for word in listed:
            if word not in known:
                self.refuse(key, f"may hold {', '.join(known)}, not {_shown(word)}")
        if len(set(listed)) < len(listed):
            self.refuse(key, "holds one thing twice")
        return tuple(word for word in known if word in listed)

    def table(self, key: str) -> "TomlTable":
        """Return a table within, empty if it is not there."""
        return self._within(key, self._take(key, {}), self._path(key))

    def tables(self, key: str) -> "list[TomlTable]":
        """Return an array of tables, empty if it is not there."""
        values = self._list(key, (), may_be_empty=True)
        return [
            self._within(key, value, f"{self._path(key)}[{number}]")
            for number, value in enumerate(values)
        ]

    def finish(self) -> None:
        """Refuse what nobody has taken."""
        for key in self._values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                known = ", ".join(sorted(self._known))
                raise ConfigError(
                    f"{self._place(key)}: {_cut(self._path(key))} is not a setting",
                    hint=near[0] if near else f"one of: {known}" if known else "remove it",
                )

    def refuse(self, key: str, problem: str) -> NoReturn:
        raise ConfigError(f"{self._place(key)}: {self._path(key)} {problem}")

    # Helpers

    def _place(self, key: str) -> str:
        line = None if self._lines is None else self._lines.line_of(self._path(key))
        return self._source if line is None else f"{self._source}:{line}"

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _take(self, key: str, default: object) -> object:
        self._known.append(key)
        value = self._values.get(key, default)
        if value is None:
            untaken = [one for one in self._values if one not in self._known]
            near = difflib.get_close_matches(key, untaken, n=1)
            if not near:
                self.refuse(key, "is missing")
            raise ConfigError(
                f"{self._place(near[0])}: {self._path(key)} is missing",
                hint=f"write {key} for {_cut(near[0])}",
            )
        return value

    def _list(self, key: str, default: object, *, may_be_empty: bool = False) -> list[object]:
        values = self._take(key, default)
        if not isinstance(values, list | tuple) or (not values and not may_be_empty):
            self.refuse(key, "is a list of at least one")
        return list(values)

    def _within(self, key: str, value: object, where: str) -> "TomlTable":
        if not isinstance(value, dict):
            self.refuse(key, f"is a table, not {_shown(value)}")
        return TomlTable(self._source, where, value, self._lines)

    def _bounded(self, key: str, value: object, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(key, f"is a number, not {_shown(value)}")
        if (isinstance(value, float) and math.isnan(value)) or not low <= value <= high:
            self.refuse(key, f"lies in {low:g}..{high:g}, not at {_shown(value)}")
        return float(value)

    def _whole(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, f"is a whole number, not {_shown(value)}")
        if not low <= value <= high:
            self.refuse(key, f"lies in {low}..{high}, not at {_shown(value)}")
        return value

    def _word(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            self.refuse(key, f"is a line of text, not {_shown(value)}")
        return value


def _shown(value: object) -> str:
    """Return a value as people would write it, cut to a line."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number too long for Python, or a very deep table
        return "that"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

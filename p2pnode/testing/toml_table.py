"""Reading TOML strictly: every key is known, every value possible, every complaint says where."""

import math
import tomllib
from pathlib import Path
from typing import NoReturn, TypeVar

from p2pnode.errors import ConfigError

_Word = TypeVar("_Word", bound=str)
_MOST_BYTES = 1 << 20


class TomlTable:
    """One table of a TOML file, from which keys are taken until none is left.

    Every method that takes a key raises :class:`ConfigError` naming file and key if the value is
    missing (and there is no default), of another type, or out of bounds.
    """

    def __init__(self, source: str, where: str, values: dict[str, object]) -> None:
        """``source`` names the file and ``where`` the table in it, for complaints."""
        self._source = source
        self._where = where
        self._values = values
        self._known: list[str] = []

    @classmethod
    def read(cls, path: Path) -> "TomlTable":
        """Read a file.

        Raises:
            ConfigError: It cannot be read, or is no TOML.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ConfigError(f"{path}: a scenario has at most {_MOST_BYTES} bytes")
            return cls(str(path), "", tomllib.loads(path.read_text("utf-8")))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        return self._bounded(key, self._take(key, default), low, high)

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        return self._whole(key, self._take(key, default), low, high)

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.refuse(key, f"is true or false, not {value!r}")
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
                self.refuse(key, f"may hold {', '.join(known)}, not {word!r}")
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
                known = ", ".join(sorted(self._known))
                raise ConfigError(
                    f"{self._source}: {self._path(key)} is not a setting",
                    hint=f"one of: {known}" if known else "remove it",
                )

    def refuse(self, key: str, problem: str) -> NoReturn:
        raise ConfigError(f"{self._source}: {self._path(key)} {problem}")

    # Helpers

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _take(self, key: str, default: object) -> object:
        self._known.append(key)
        value = self._values.get(key, default)
        if value is None:
            self.refuse(key, "is missing")
        return value

    def _list(self, key: str, default: object, *, may_be_empty: bool = False) -> list[object]:
        values = self._take(key, default)
        if not isinstance(values, list | tuple) or (not values and not may_be_empty):
            self.refuse(key, "is a list of at least one")
        return list(values)

    def _within(self, key: str, value: object, where: str) -> "TomlTable":
        if not isinstance(value, dict):
            self.refuse(key, f"is a table, not {value!r}")
        return TomlTable(self._source, where, value)

    def _bounded(self, key: str, value: object, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(key, f"is a number, not {value!r}")
        if math.isnan(value) or not low <= value <= high:
            self.refuse(key, f"lies in {low:g}..{high:g}, not at {value!r}")
        return float(value)

    def _whole(self, key: str, value: object, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, f"is a whole number, not {value!r}")
        if not low <= value <= high:
            self.refuse(key, f"lies in {low}..{high}, not at {value}")
        return value

    def _word(self, key: str, value: object) -> str:
        if not isinstance(value, str) or not value or not value.isprintable():
            self.refuse(key, f"is a line of text, not {value!r}")
        return value

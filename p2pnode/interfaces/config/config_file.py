"""The settings file: which one, what it says for a command, and what is wrong with it."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pnode.errors import ConfigError, UserError
from p2pnode.interfaces.config.kinds import as_several, refusal
from p2pnode.interfaces.config.settings import KEEPS_NONE, SHARED, Path as Words, Setting
from p2pnode.node.places import CONFIG_VARIABLE, config_file, expanded
from p2pnode.toml.file import TomlFile, read_toml
from p2pnode.toml.lines import KeyLines

_SHOWN: Final = 60  # letters of a key in a complaint
_LOOK: Final = "p2pnode config init writes a file with every setting"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which file settings come from.

    Attributes:
        path: The file.
        is_named: Whether somebody named it; only then must it be there.
    """

    path: Path
    is_named: bool


@dataclass(frozen=True, slots=True)
class Given:
    """A value that the file has for a setting of a command.

    Attributes:
        setting: The setting.
        value: As TOML has it.
        name: The key with its table, as in ``up.port``.
        place: ``PATH:LINE``.
    """

    setting: Setting
    value: object
    name: str
    place: str


def choose(named: str | None, environ: Mapping[str, str]) -> Choice:
    """Return the file that is ``named``, else the one in the usual place.

    Raises:
        UserError: There is no home directory to look in, or the name is no path.
    """
    if named is None:
        return Choice(config_file(environ), is_named=False)
    if not named:
        raise ConfigError("--config is empty", hint="name a file, or leave it out")
    return Choice(expanded(Path(named)), is_named=True)


class ConfigFile:
    """What a settings file says; an absent one says nothing."""

    def __init__(self, file: TomlFile, *, is_there: bool = True) -> None:
        self.path = file.path
        self.is_there = is_there
        self._values = file.values
        self._lines = file.lines

    @classmethod
    def read(cls, choice: Choice) -> "ConfigFile":
        """Read the file.

        Raises:
            ConfigError: It cannot be read, is no TOML, or was named and is not there.
        """
        try:
            return cls(read_toml(choice.path))
        except ConfigError as error:
            if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                error.hint = error.hint or "mend it, or move it away; p2pnode config check"
                raise
            if choice.is_named:
                error.hint = f"--config and {CONFIG_VARIABLE} name a file that is there; {_LOOK}"
                raise
        return cls(TomlFile(choice.path, {}, KeyLines("")), is_there=False)

    def problems_of_names(self, commands: Iterable[str]) -> Iterator[ConfigError]:
        """Yield what is wrong outside the tables of commands, of which these are all."""
        tables = [name for name in commands if name not in KEEPS_NONE]
        for key, value in self._values.items():
            if isinstance(value, dict) and key in KEEPS_NONE:
                yield self._problem(
                    (key,), "takes no settings from a file", "remove the table", is_table=True
                )
            elif isinstance(value, dict) and key not in tables:
                problem = "is no command that keeps settings"
                yield self._problem((key,), problem, _nearest(key, tables), is_table=True)
            elif not isinstance(value, dict) and key in tables:
                yield self._problem((key,), f"is a table: write [{key}]", "")
            elif not isinstance(value, dict) and key not in SHARED:
                yield self._problem(
                    (key,), "is no setting that stands above the tables", _nearest(key, SHARED)
                )

    def given(self, command: Words, settings: Mapping[str, Setting]) -> Iterator[Given]:
        """Yield what is said for the ``settings`` of a command: of its table, else above all.

        Raises:
            ConfigError: A key is unknown, or its value of another kind.
        """
        for one in self.read_table(command, settings):
            if isinstance(one, ConfigError):
                raise one
            yield one

    def read_table(
        self, command: Words, settings: Mapping[str, Setting]
    ) -> Iterator[Given | ConfigError]:
        """Yield what is said for a command, and what is wrong with it."""
        table = self._table(command)
        if isinstance(table, ConfigError):
            yield table
            return
        for key in table:
            if key not in settings:
                hint = _nearest(key, settings)
                yield self._problem((*command, key), "is no setting", hint)
        above = {key: self._values[key] for key in SHARED if key in self._values}
        for key, setting in settings.items():
            if key in table:
                yield self._read((*command, key), setting, table[key])
            elif key in above:
                yield self._read((key,), setting, above[key])

    def problems_of_groups(self, known: Iterable[Words]) -> Iterator[ConfigError]:
        """Yield what stands in the table of a group of commands and belongs to none of them."""
        listed = [path for path in known if len(path) > 1]
        for group in sorted({path[:-1] for path in listed}):
            table = self._table(group)
            inner = [path[-1] for path in listed if path[:-1] == group]
            for key in [] if isinstance(table, ConfigError) else table:
                if key not in inner:
                    hint = _nearest(key, inner)
                    yield self._problem((*group, key), "is no command that keeps settings", hint)

    # Helpers

    def _table(self, command: Words) -> "dict[str, object] | ConfigError":
        table: dict[str, object] = self._values
        for number, name in enumerate(command, 1):
            inner = table.get(name, {})
            if not isinstance(inner, dict):
                words = command[:number]
                return self._problem(words, f"is a table: write [{'.'.join(words)}]", "")
            table = inner
        return table

    def _read(self, path: Words, setting: Setting, value: object) -> Given | ConfigError:
        if problem := refusal(setting, value):
            return self._problem(path, problem, f"{' '.join(('p2pnode', *setting.command))} --help")
        return Given(setting, as_several(setting, value), ".".join(path), self._place(path))

    def _place(self, path: Words) -> str:
        line = self._lines.line_of(".".join(path))
        return f"{self.path}" if line is None else f"{self.path}:{line}"

    def _problem(
        self, path: Words, problem: str, hint: str, *, is_table: bool = False
    ) -> ConfigError:
        name = ".".join(path)
        name = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
        name = f"[{name}]" if is_table else name
        return ConfigError(f"{self._place(path)}: {name} {problem}", hint=hint)


def _nearest(key: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(key[:_SHOWN], names, n=1)
    if near:
        return f"write {near[0]}"
    return f"one of: {', '.join(names)}" if names else "remove it"


def problem_of(error: UserError) -> dict[str, str]:
    """Return a problem as facts."""
    return {"what": str(error), "hint": error.hint}

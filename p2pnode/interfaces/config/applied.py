"""Brings a settings file to the commands, and says of a wrong value where it was said.

click knows the order: what was given beats the environment, that beats its ``default_map``, which
is what the file says, and that beats the default.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from p2pnode.errors import ConfigError, UsageError, UserError
from p2pnode.interfaces.config.settings import (
    Path,
    Setting,
    leaves,
    name_variables,
    settings_of,
)

_CHOSEN: Final = "p2pnode.config.chosen"
_GIVEN: Final = "p2pnode.config.given"
_ResultT = TypeVar("_ResultT")

OVERRIDES: Final[Mapping[str, str]] = {"state": "P2PNODE_HOME"}
"""Settings that another variable sets too: it is of the environment, and so beats the file."""

_LOOK_ANYWAY: Final = frozenset({"config", "doctor", "completion"})
"""Commands that work with a broken file: they say what is wrong with it, or need none."""


def prepare(name: str, command: click.Command) -> None:
    """Let the options of a command be set by variables, and its errors say where they were."""
    name_variables((name,), command)
    for path, leaf in leaves((name,), command):
        if leaf.callback is not None and settings_of(path, leaf):
            leaf.callback = _telling(path, leaf.callback)


def apply_file(
    context: click.Context, named: str | None, commands: Iterable[str], *, is_help: bool
) -> None:
    """Set the defaults of the command that is called to what the file says.

    A command that is to look at a broken file goes by the defaults, and so does a call for help.

    Raises:
        UserError: The file cannot be read, or something in it that concerns the command is wrong.
    """
    name = context.invoked_subcommand
    if name is None:
        return
    context.meta[_CHOSEN] = named
    try:
        context.default_map = {name: _defaults(context, name, named, tuple(commands))}
    except UserError:
        if not is_help and name not in _LOOK_ANYWAY:
            raise


def chosen(context: click.Context) -> str | None:
    """Return the file that somebody named, or None."""
    named = context.meta.get(_CHOSEN)
    return named if isinstance(named, str) else None


def _defaults(
    context: click.Context, name: str, named: str | None, commands: tuple[str, ...]
) -> dict[str, Any]:
    from p2pnode.interfaces.config.config_file import ConfigFile, choose

    file = ConfigFile.read(choose(named, os.environ))
    for problem in file.problems_of_names(commands):
        raise problem
    command = context.command
    found = command.get_command(context, name) if isinstance(command, click.Group) else None
    tables: dict[str, Any] = {}
    places: dict[tuple[Path, str], tuple[str, str]] = {}
    known = {path: settings_of(path, leaf) for path, leaf in leaves((name,), found or command)}
    for problem in file.problems_of_groups(known):
        raise problem
    for path, settings in known.items():
        table = tables
        for word in path[1:]:
            table = table.setdefault(word, {})
        for one in file.given(path, settings):
            if not os.environ.get(OVERRIDES.get(one.setting.key, "")):
                table[str(one.setting.option.name)] = one.value
                places[path, one.setting.key] = (one.place, one.name)
    context.meta[_GIVEN] = places
    return tables


# Errors


def told_of_parameter(error: click.BadParameter) -> Exception:
    """Return an error about a value that says where it was said, where that was no flag."""
    context, option = error.ctx, error.param
    if context is None or not isinstance(option, click.Option):
        return error
    for setting in settings_of(_path(context), context.command).values():
        if setting.option is option and (said := _said(context, setting)):
            place, name = said
            problem = f"{place}{name}: {error.message}"
            return UsageError(problem, hint=f"{context.command_path} --help")
    return error


def _telling(path: Path, callback: Callable[..., _ResultT]) -> Callable[..., _ResultT]:
    """Return a command's body whose complaints name what a person wrote, and where."""

    @functools.wraps(callback)
    def told(*arguments: Any, **options: Any) -> _ResultT:
        try:
            return callback(*arguments, **options)
        except ConfigError as error:
            context = click.get_current_context(silent=True)
            if context is not None:
                _name_places(error, path, context)
            raise

    return told


def _name_places(error: ConfigError, path: Path, context: click.Context) -> None:
    """Call what was set by the file or the environment by the names that it has there."""
    message, places = str(error), []
    for setting in settings_of(path, context.command).values():
        said = _said(context, setting)
        flag = re.compile(rf"{setting.flag}(?![\w-])")
        if said is None:
            continue
        place, name = said
        value = context.params.get(str(setting.option.name))
        if flag.search(message) or flag.search(error.hint) or _is_in(value, message):
            places.append(place or f"{name}: ")
            message = flag.sub(name, message)
            error.hint = flag.sub(name, error.hint)
    for place in places:
        if not message.startswith(place.removesuffix(": ")):
            message = f"{place}{message}"
    error.args = (message, *error.args[1:])


def _said(context: click.Context, setting: Setting) -> tuple[str, str] | None:
    """Return where a setting was said and what it is called there; None for a flag or a default."""
    source = context.get_parameter_source(str(setting.option.name))
    if source is ParameterSource.ENVIRONMENT:
        return "", setting.variable
    if source is ParameterSource.DEFAULT_MAP:
        places: dict[tuple[Path, str], tuple[str, str]] = context.meta.get(_GIVEN, {})
        if found := places.get((setting.command, setting.key)):
            return f"{found[0]}: ", found[1]
    return None


def _is_in(value: object, message: str) -> bool:
    """Tell whether a complaint that names no flag is about this value."""
    text = str(value) if isinstance(value, str | int | float) else ""
    return len(text) > 1 and bool(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message))


def _path(context: click.Context) -> Path:
    """Return the words that name the command of a context, without the program's."""
    words: list[str] = []
    at: click.Context | None = context
    while at is not None and at.parent is not None:
        words.append(str(at.info_name))
        at = at.parent
    return tuple(reversed(words))

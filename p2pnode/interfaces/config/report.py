"""Every setting with its value and where that came from, and all that is wrong with them."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import click

from p2pnode.errors import ConfigError, UserError
from p2pnode.interfaces.config.applied import OVERRIDES
from p2pnode.interfaces.config.config_file import ConfigFile, Given
from p2pnode.interfaces.config.kinds import as_toml, default_of
from p2pnode.interfaces.config.settings import Path, Setting, unknown_variables

Known = Mapping[Path, Mapping[str, Setting]]
MOST_PROBLEMS: Final = 50
_HIDDEN: Final = "(hidden)"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it is now.

    Attributes:
        command: Its command, as in ``up``.
        key: What it is called in the file.
        value: As TOML has it; None where nothing is set.
        source: ``environment``, ``file`` or ``default``.
        place: The variable, or ``PATH:LINE``; empty for a default.
        variable: The variable that would set it.
    """

    command: str
    key: str
    value: object
    source: str
    place: str
    variable: str


def rows(file: ConfigFile | None, known: Known, environ: Mapping[str, str]) -> Iterator[Row]:
    """Yield each setting; where the file cannot be used, as if there were none."""
    for path, settings in known.items():
        given: dict[str, Given] = {}
        for one in file.read_table(path, settings) if file is not None else ():
            if isinstance(one, Given):
                given[one.setting.key] = one
        for key, setting in settings.items():
            value, source, place = _now(setting, given.get(key), environ)
            if isinstance(value, float) and not math.isfinite(value):
                value = str(value)  # for which JSON has no word
            value = _HIDDEN if setting.is_secret and value is not None else value
            yield Row(" ".join(path), key, value, source, place, setting.variable)


def _now(
    setting: Setting, given: Given | None, environ: Mapping[str, str]
) -> tuple[object, str, str]:
    for variable in (setting.variable, OVERRIDES.get(setting.key, "")):
        if text := environ.get(variable):
            return _read(setting, text), "environment", variable
    if given is not None:
        return given.value, "file", given.place
    return default_of(setting.option), "default", ""


def _read(setting: Setting, text: str) -> object:
    """Return what a variable says as its option reads it, or as it stands."""
    try:
        value: object = _converted(setting, _split(setting, text))
    except (click.ClickException, UserError):
        return text
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return value if isinstance(value, bool | int | float) else str(value)


def problems(file: ConfigFile, root: click.Group, known: Known) -> Iterator[UserError]:
    """Yield what is wrong in a file and in the variables of commands, each thing once.

    At most :data:`MOST_PROBLEMS`, and a word that there are more: a file of another program has one
    on each of its lines.
    """
    told: set[str] = set()
    for problem in _all_problems(file, root, known):
        # What stands above the tables is of many commands, and wrong in each.
        if len(told) == MOST_PROBLEMS:
            yield ConfigError(f"more than {MOST_PROBLEMS} problems", hint="mend these first")
            return
        if str(problem) not in told:
            told.add(str(problem))
            yield problem


def _all_problems(file: ConfigFile, root: click.Group, known: Known) -> Iterator[UserError]:
    yield from file.problems_of_names(root.list_commands(click.Context(root)))
    yield from file.problems_of_groups(known)
    for path, settings in known.items():
        for one in file.read_table(path, settings):
            problem = one if isinstance(one, ConfigError) else refused(one)
            if problem is not None:
                yield problem
    yield from _problems_of_variables(known)


def _problems_of_variables(known: Known) -> Iterator[UserError]:
    import difflib

    for name, ours in unknown_variables(os.environ, known):
        near = difflib.get_close_matches(name, ours, n=1)
        yield ConfigError(
            f"the variable {name} sets nothing", hint=near[0] if near else f"unset {name}"
        )
    for settings in known.values():
        for setting in settings.values():
            if text := os.environ.get(setting.variable):
                given = Given(setting, _split(setting, text), setting.variable, "")
                if (problem := refused(given)) is not None:
                    yield problem


def refused(given: Given) -> ConfigError | None:
    """Return what the option says against a value, or None where it takes it."""
    place = f"{given.place}: " if given.place else ""
    try:
        _look_closer(given.setting, _converted(given.setting, given.value))
    except click.UsageError as error:
        text = error.message
        hint = f"{' '.join(('p2pnode', *given.setting.command))} --help"
    except UserError as error:
        text = str(error).removeprefix(given.setting.flag).lstrip(": ")
        hint = error.hint
    else:
        return None
    return ConfigError(f"{place}{given.name}: {text}", hint=hint)


def _split(setting: Setting, text: str) -> object:
    option = setting.option
    return option.type.split_envvar_value(text) if option.multiple else text


def _converted(setting: Setting, value: object) -> object:
    """Convert a value as the command would, or raise what it would."""
    command = click.Command(" ".join(setting.command), params=[setting.option])
    result: object = setting.option.process_value(click.Context(command), value)
    return result


def _look_closer(setting: Setting, value: object) -> None:
    """Look at what the command itself looks at once it runs.

    Raises:
        UserError: It would refuse it.
    """
    from p2pnode.engine.ggml.threads import refuse_too_many
    from p2pnode.interfaces.cli.model_choices import parse_layers, wanted
    from p2pnode.interfaces.cli.node_options import DEFAULT_PORT
    from p2pnode.interfaces.cli.values import check_listen, node_name, peer_address

    match setting.key, value:
        case "layers", str(text):
            parse_layers(text)
        case "name", str(text):
            node_name(text)
        case "listen", str(text):
            check_listen(text)
        case "threads", int(count):
            refuse_too_many(count)
        case "model", tuple(models):
            wanted([str(one) for one in models], "auto", None)
        case "peer", tuple(peers):
            for peer in peers:
                peer_address(str(peer), DEFAULT_PORT)
        case _:
            pass


def in_words(row: Row) -> tuple[str, str, str, str]:
    """Return a row of a table for people."""
    value = "-" if row.value is None else row.value
    text = value if value in ("-", _HIDDEN) else as_toml(value)
    if row.source == "environment":
        return row.command, row.key, str(text), f"environment variable {row.place}"
    return row.command, row.key, str(text), row.place or row.source

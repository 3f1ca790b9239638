"""This very command once more: how it was started, and the options that it was given."""

import sys
from pathlib import Path

import click
from click.core import ParameterSource


def own_command() -> list[str]:
    """Return the words that start ``p2pnode`` as it was started, before its own arguments."""
    given = sys.argv[1:]
    words = sys.orig_argv[1 : len(sys.orig_argv) - len(given)]
    if not words or sys.orig_argv[len(words) + 1 :] != given or not _is_ours(words):
        words = ["-m", "p2pnode"]  # a program calls the command line
    return [sys.executable, *words]


def given_options(context: click.Context | None = None) -> list[str]:
    """Return the options that stood on a command line: that of the running command, or another."""
    context = context or click.get_current_context()
    options: list[str] = []
    for parameter in context.command.params:
        name = parameter.name
        if not isinstance(parameter, click.Option) or name is None:
            continue
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if parameter.is_flag:
            names = parameter.opts if value else parameter.secondary_opts
            options.append(names[0])
        else:
            values = value if parameter.multiple else [value]
            options += [f"{parameter.opts[0]}={one}" for one in values]
    return options


def _is_ours(words: list[str]) -> bool:
    """Whether an interpreter that is given ``words`` runs this package's command."""
    return words[-2:] == ["-m", "p2pnode"] or Path(words[-1]).name == "p2pnode"

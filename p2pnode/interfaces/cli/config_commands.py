"""Commands about the settings that a person keeps: what they are, where from, what is wrong."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.node_options import json_option
from p2pnode.interfaces.cli.output import complain, note, say, say_json, table
from p2pnode.interfaces.config.applied import chosen
from p2pnode.interfaces.config.config_file import ConfigFile, choose, problem_of
from p2pnode.interfaces.config.report import Known, in_words, problems, rows
from p2pnode.interfaces.config.settings import KEEPS_NONE, Setting, all_settings
from p2pnode.interfaces.config.template import template
from p2pnode.phrases import plural
from p2pnode.replacing import replace_file

_HEADINGS = ("COMMAND", "SETTING", "VALUE", "FROM")


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode config show up")
def config() -> None:
    """Show the settings that are kept, look for mistakes in them, or begin a file."""


@config.command(epilog="Examples:\n\n  p2pnode config show\n\n  p2pnode config show up --json")
@click.argument("command", nargs=-1)
@json_option
def show(command: tuple[str, ...], as_json: bool) -> None:
    """Show each setting, of a COMMAND or of all: its value, and where that came from."""
    known = _of(command)
    file, trouble = _file()
    found = list(rows(file, known, os.environ))
    wrong = [trouble] if trouble else list(problems(file, _root(), known)) if file else []
    if as_json:
        facts = {"file": str(_path()), "problems": [problem_of(one) for one in wrong]}
        say_json({**facts, "settings": [asdict(row) for row in found]})
        return
    say(table(_HEADINGS, [in_words(row) for row in found]))
    for one in wrong:
        complain(one)


@config.command(epilog="Example:\n\n  p2pnode config path")
def path() -> None:
    """Print which file is read."""
    say(str(_path()))
    if not _path().exists():
        note("it is not there; p2pnode config init writes one")


@config.command(epilog="Example:\n\n  p2pnode config init")
@click.option("--force", is_flag=True, help="Write over the file that is there.")
def init(force: bool) -> None:
    """Write a file of all settings with their defaults, each behind a #."""
    target = _path()
    if not force and os.path.lexists(target):
        raise UserError(f"{target} is there already", hint="--force writes over it")
    if target.exists() and not target.is_file():
        raise UserError(f"{target} is no file", hint="name another with --config")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, template(all_settings(_root())).encode())
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}",
            hint="name another with p2pnode --config FILE config init",
        ) from error
    say(f"{target} has every setting; take the # off those that you want")


@config.command(epilog="Example:\n\n  p2pnode config check")
@json_option
def check(as_json: bool) -> int:
    """Look for mistakes in the file and in the variables; exits with 0 where there are none."""
    file, trouble = _file()
    known = all_settings(_root())
    wrong = [trouble] if trouble else list(problems(file, _root(), known)) if file else []
    if as_json:
        facts = [problem_of(one) for one in wrong]
        say_json({"file": str(_path()), "problems": facts, "ok": not wrong})
        return 1 if wrong else 0
    for one in wrong:
        complain(one)
    if wrong:
        note(f"{plural(len(wrong), 'problem')}")
        return 1
    is_there = file is not None and file.is_there
    said = sum(row.source != "default" for row in rows(file, known, os.environ))
    where = str(_path()) if is_there else f"{_path()} is not there, which is no mistake;"
    say(
        f"{where}: all is well" if is_there else f"{where} {plural(said, 'setting')} from variables"
    )
    return 0


def _root() -> click.Group:
    command = click.get_current_context().find_root().command
    if not isinstance(command, click.Group):
        raise TypeError(f"{command.name} is no group")
    return command


def _path() -> Path:
    return choose(chosen(click.get_current_context()), os.environ).path


def _file() -> tuple[ConfigFile | None, UserError | None]:
    """Return the file, or why it cannot be read."""
    try:
        return ConfigFile.read(choose(chosen(click.get_current_context()), os.environ)), None
    except UserError as error:
        return None, error


def _of(command: tuple[str, ...]) -> Known:
    """Return the settings of a command, or of a group of them; of all without one.

    Raises:
        UsageError: It keeps none.
    """
    known: Mapping[tuple[str, ...], Mapping[str, Setting]] = all_settings(_root())
    chosen_ones = {path: known[path] for path in known if path[: len(command)] == command}
    if not chosen_ones:
        names = ", ".join(dict.fromkeys(path[0] for path in known))
        why = "takes what it is told" if command[0] in KEEPS_NONE else "is no command with settings"
        raise UsageError(f"{' '.join(command)} {why}", hint=f"one of: {names}")
    return chosen_ones

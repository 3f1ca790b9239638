"""Commands that have the system start a node, and keep it running."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pnode.errors import UsageError, UserError
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.node_options import UpOptions, json_option
from p2pnode.interfaces.cli.output import note, say, say_json
from p2pnode.interfaces.cli.own_command import given_options, own_command
from p2pnode.interfaces.cli.settings import settings_of, state_of
from p2pnode.interfaces.service.managers import is_ours, manager_here, standings
from p2pnode.interfaces.service.service import (
    Manager,
    Service,
    Standing,
    absolute,
    kept_environment,
    title_of,
)

if TYPE_CHECKING:
    from p2pnode.node.settings import NodeSettings

_NOT_FOR_A_SERVICE = ("detach", "detached", "with_parent")
_TRYING = 60.0  # seconds for a command that only says its version

name_option = click.option(
    "--name", metavar="NAME", help="Of several services, the one called p2pnode-NAME."
)


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode service install -- --max-layers 15")
def service() -> None:
    """Have the system start a node, and keep it running."""


@service.command(
    epilog="Examples:\n\n  p2pnode service install"
    "\n\n  p2pnode service install -- --model smollm2-135m --max-layers 15"
    "\n\n  p2pnode service install --name second -- --state ~/second --port 0"
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF UP]")
@name_option
@click.option("--print", "only_print", is_flag=True, help="Print its file, and write nothing.")
def install(options: tuple[str, ...], name: str | None, only_print: bool) -> None:
    """Install a service of this account that runs 'p2pnode up' with OPTIONS, and start it."""
    manager, title = manager_here(), title_of(name)
    context = _parsed(options)
    state = state_of(context.params["state"])
    described, secret = _described(title, context, state)
    if only_print:
        say(manager.text(described), end="")
        return
    _refuse_taken(manager, title, state)
    settings = _checked(context)
    text = manager.text(described)
    _make_places(settings, described)
    _write(manager.path(title), text)
    say(f"wrote {manager.path(title)}: it runs {shlex.join(described.command)}")
    for variable in secret:
        note(f"{variable} is not written there, for it may be a secret")
    for line in manager.begin(title):
        note(line)
    _tell_running(manager, title)


@service.command(
    epilog="Examples:\n\n  p2pnode service remove\n\n  p2pnode service remove --name second"
)
@name_option
def remove(name: str | None) -> None:
    """Stop a service, and take it away; the node's state and models stay."""
    manager, title = manager_here(), title_of(name)
    path = manager.path(title)
    if path not in manager.installed():
        raise _absent(manager, title)
    for line in manager.end(title):
        note(line)
    path.unlink(missing_ok=True)
    manager.forget()
    say(f"removed {path}")


@service.command(epilog="Examples:\n\n  p2pnode service status\n\n  p2pnode service status --json")
@name_option
@json_option
def status(name: str | None, as_json: bool) -> None:
    """Tell which services of p2pnode are installed, whether they run, and what they run."""
    manager = manager_here()
    found = standings(manager)
    if name is not None:
        found = [one for one in found if one.title == title_of(name)]
    if as_json:
        say_json({"services": [{**asdict(one), "path": str(one.path)} for one in found]})
        return
    if not found:
        raise _absent(manager, title_of(name))
    for one in found:
        _show(one)


def _show(one: Standing) -> None:
    running = {True: "running", False: "not running", None: "whether it runs cannot be told"}
    enabled = {True: "starts by itself", False: "does not start by itself", None: "not enabled"}
    pid = f", process {one.pid}" if one.pid else ""
    said = f": {one.said}" if one.said else ""
    say(f"{one.title}  {running[one.running]}{pid}{said}; {enabled[one.enabled]}")
    say(f"  {one.path}")
    say(f"  {shlex.join(one.command) or 'its command cannot be read'}")


def _parsed(options: Sequence[str]) -> click.Context:
    """Read the options of ``up``.

    Raises:
        UsageError: One of them is no option of a service.
        click.UsageError: There is no such option, or not with that value.
    """
    from p2pnode.interfaces.cli.node_commands import up

    parent = click.get_current_context().find_root()
    context = up.make_context("up", list(options), parent=parent)
    if given := [word for word in _NOT_FOR_A_SERVICE if context.params.get(word)]:
        raise UsageError(
            f"--{given[0].replace('_', '-')} is not for a service",
            hint="leave it out: the system keeps the node in the background",
        )
    return context


def _described(title: str, context: click.Context, state: Path) -> tuple[Service, list[str]]:
    """Return the service, and the variables that are kept out of it."""
    from p2pnode.node.places import cache_directory

    kept, secret = kept_environment(os.environ)
    given = [_absolute_value(option) for option in given_options(context)]
    cache = cache_directory(os.environ)
    command = (*_lasting_command(), "up", *given)
    return Service(title, command, kept, state, cache), secret


def _absolute_value(option: str) -> str:
    name, is_given, value = option.partition("=")
    return f"{name}={absolute(value)}" if is_given else option


def _lasting_command() -> list[str]:
    """Return what starts ``p2pnode`` wherever it is run from.

    Raises:
        UserError: It runs from this folder alone.
    """
    python, *words = own_command()
    if words[-1] == "p2pnode" and words[-2:-1] == ["-m"]:
        words = ["-P", *words]  # no folder is looked at for what Python brings
    else:
        words[-1] = str(Path(words[-1]).absolute())
    try:
        done = subprocess.run(
            [python, *words, "--version"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TRYING,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode:
        raise UserError(
            "p2pnode runs from this folder alone, which a service does not know",
            hint=f"install it: {shlex.join([sys.executable, '-m', 'pip', 'install', '.'])}",
        )
    return [python, *words]


def _checked(context: click.Context) -> "NodeSettings":
    """Find out, and fetch, all that ``up`` would; refuse what it would refuse.

    Raises:
        UserError: An option is impossible, or the model cannot be had.
    """
    names = {field.name for field in fields(UpOptions)}
    chosen = {name: value for name, value in context.params.items() if name in names}
    return settings_of(UpOptions(**chosen))


def _refuse_taken(manager: Manager, title: str, state: Path) -> None:
    """Refuse a service that could not run, or whose file somebody else wrote.

    Raises:
        UserError: It is so.
    """
    from p2pnode.node.identity import lock_holder

    path = manager.path(title)
    if not is_ours(manager, path):
        raise UserError(
            f"{path} was not written by p2pnode", hint="move it away, or choose another --name"
        )
    others = [one for one in standings(manager) if one.title != title]
    if taken := [one.title for one in others if _state_in(one.command) == state]:
        raise UsageError(
            f"the service {taken[0]} has the state directory {state}",
            hint="give this one a directory and a port of its own: -- --state DIR --port 0",
        )
    holder, known = lock_holder(state), manager.standing(path)
    if holder is not None and holder != known.pid:
        raise UserError(
            f"a node runs on {state} already (process {holder})",
            hint="stop it first: p2pnode stop",
        )


def _state_in(command: Sequence[str]) -> Path:
    """Return the state directory of a service's command, as its file has it."""
    given = [word.removeprefix("--state=") for word in command if word.startswith("--state=")]
    return Path(given[-1]) if given else state_of(None)


def _make_places(settings: "NodeSettings", described: Service) -> None:
    """Make the folders that a service may write to: one that is not there stays closed to it."""
    from p2pnode.node.identity import StateDirectory

    StateDirectory(settings.state)
    described.cache.mkdir(parents=True, exist_ok=True)


def _write(path: Path, text: str) -> None:
    """Put a service's file in its place, whole.

    Raises:
        UserError: It cannot be written.
    """
    from p2pnode.replacing import replace_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode(), mode=0o644)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}",
            hint="p2pnode service install --print prints it",
        ) from error


def _tell_running(manager: Manager, title: str) -> None:
    found = manager.standing(manager.path(title))
    if found.running:
        say(f"{title} runs, as process {found.pid}")
        note("p2pnode service status tells how it does, p2pnode top shows it")


def _absent(manager: Manager, title: str) -> UserError:
    others = ", ".join(one.stem for one in manager.installed())
    known = f"; there are: {others}" if others else ""
    return UserError(
        f"no service {title} is installed{known}",
        hint="choose one with --name" if others else "install it: p2pnode service install",
    )

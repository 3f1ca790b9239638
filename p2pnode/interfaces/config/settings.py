"""Which options of commands can be kept, and what they are called in a file and in the environment.

A setting is an option that its command shows, but for those that are said each time. In a file it
is a key without the dashes, in the table of its command; in the environment it is a variable:
``--kv-memory`` of ``up`` is ``kv-memory`` in ``[up]``, and ``P2PNODE_UP_KV_MEMORY``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import click

Path: TypeAlias = tuple[str, ...]
"""The words that name a command, such as ``("service", "install")``."""

KEEPS_NONE: Final = frozenset(
    {"models", "demo", "simulate", "frame", "bench", "config", "completion"}
)
"""Commands that take what they are told, and nothing else: a measurement that depends on a file
measures something else the next day."""

SHARED: Final = (
    *("state", "model", "engine", "device", "threads", "kv-memory", "activations"),
    *("listen", "port", "peer", "name", "mdns"),
)
"""Keys that may stand above the first table, for every command that has the option: they are about
the node, whoever starts it or asks it."""

_EACH_TIME = frozenset({"json", "now", "yes", "force", "help"})
_SECRET_ENDS = ("key", "secret", "token", "password")


class OneOrSeveral(click.Option):
    """An option that may be repeated, and that a file may also give as one text."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option that can be kept.

    Attributes:
        command: The words that name its command.
        key: What it is called in a file.
        option: The option itself.
    """

    command: Path
    key: str
    option: click.Option

    @property
    def flag(self) -> str:
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable(*self.command, self.key)

    @property
    def is_secret(self) -> bool:
        """Whether nobody should read its value over a shoulder."""
        return self.key.split("-")[-1] in _SECRET_ENDS


def variable(*words: str) -> str:
    """Return the name of the variable that these words make."""
    return "_".join(("p2pnode", *words)).replace("-", "_").upper()


def settings_of(path: Path, command: click.Command) -> dict[str, Setting]:
    """Return what of one command can be kept, by key; nothing of a group."""
    if path[:1] and path[0] in KEEPS_NONE:
        return {}
    found: dict[str, Setting] = {}
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden and option.expose_value:
            key = next((one[2:] for one in option.opts if one.startswith("--")), "")
            if key and key not in _EACH_TIME:
                found[key] = Setting(path, key, option)
    return found


def leaves(path: Path, command: click.Command) -> Iterator[tuple[Path, click.Command]]:
    """Yield each command that is none of commands, with the words that name it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if (inner := command.get_command(context, name)) is not None:
            yield from leaves((*path, name), inner)


def all_settings(root: click.Group) -> dict[Path, dict[str, Setting]]:
    """Return what can be kept of every command, by the words that name it; imports them all."""
    context = click.Context(root)
    found: dict[Path, dict[str, Setting]] = {}
    for name in root.list_commands(context):
        command = None if name in KEEPS_NONE else root.get_command(context, name)
        if command is not None:
            for path, leaf in leaves((name,), command):
                if settings := settings_of(path, leaf):
                    found[path] = settings
    return found


def name_variables(path: Path, command: click.Command) -> None:
    """Let each setting of a command, or of a group of them, be set by its variable."""
    for leaf_path, leaf in leaves(path, command):
        for setting in settings_of(leaf_path, leaf).values():
            if setting.option.envvar is None:
                setting.option.envvar = setting.variable


def unknown_variables(
    environ: Mapping[str, str], known: Mapping[Path, Mapping[str, Setting]]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each variable that begins as a command's do and sets nothing, with those that do."""
    for name in sorted(environ):
        fronts = [path for path in known if name.startswith(f"{variable(*path)}_")]
        if fronts:
            path = max(fronts, key=len)
            ours = [setting.variable for setting in known[path].values()]
            if name not in ours:
                yield name, ours

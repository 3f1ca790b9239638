"""A settings file to begin with: every setting with its default, each behind a ``#``."""

import textwrap
from collections.abc import Iterator, Mapping

import click

from p2pnode.interfaces.config.kinds import as_toml, default_of, kind_of
from p2pnode.interfaces.config.settings import SHARED, Path, Setting, variable

_WIDTH = 98
_HEAD = f"""\
Settings of p2pnode. What begins with # says nothing: take it off the lines that you want.

What is given to a command beats the environment, as in {variable("up", "port")}=4747; that beats
this file, and this file beats the defaults. A path is best written whole. p2pnode config check
says what is wrong here, and p2pnode config show where each setting comes from.

Above the first table, these hold for every command that has the option:
{", ".join(SHARED)}."""


def template(known: Mapping[Path, Mapping[str, Setting]]) -> str:
    """Return the text of a file that says nothing yet."""
    lines = [_comment(line) for line in _HEAD.splitlines()]
    lines += ["", '#state = "/srv/p2pnode"']
    for path, settings in known.items():
        lines += ["", "", f"[{'.'.join(path)}]"]
        for setting in settings.values():
            lines += ["", *_entry(setting)]
    return "\n".join(lines) + "\n"


def _entry(setting: Setting) -> Iterator[str]:
    option = setting.option
    help_text = " ".join((option.help or "").split())
    for line in textwrap.wrap(help_text, _WIDTH - 2, break_on_hyphens=False):
        yield _comment(line)
    default = default_of(option)
    if default is None:
        yield f"# {setting.key} = {kind_of(option)}; not set"
    else:
        about = f"  # {kind_of(option)}" if not _speaks(option, default) else ""
        yield f"#{setting.key} = {as_toml(default)}{about}"


def _speaks(option: click.Option, default: object) -> bool:
    """Whether a default shows by itself what else could stand there."""
    return isinstance(default, bool) or (isinstance(default, str) and not option.metavar)


def _comment(line: str) -> str:
    return f"# {line}".rstrip()

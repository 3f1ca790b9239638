"""Commands that let a shell's Tab key complete ours."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.completions import COMPLETING
from p2pnode.interfaces.cli.groups import PlainGroup
from p2pnode.interfaces.cli.output import note, say
from p2pnode.node.places import expanded
from p2pnode.replacing import replace_file

SHELLS: Final = ("bash", "zsh", "fish")

_PROGRAM = "p2pnode"
_BASH_PACKAGE = (
    "/usr/share/bash-completion/bash_completion",
    "/usr/local/share/bash-completion/bash_completion",
    "/opt/homebrew/etc/profile.d/bash_completion.sh",
    "/etc/bash_completion",
)
_MOST_SCRIPT = 1 << 16  # bytes read of a script that may be ours
_READABLE = 0o644

_shell_argument = click.argument("shell", type=click.Choice(SHELLS), required=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shell looks for the completion of a program.

    Attributes:
        path: The file.
        more: What else the shell needs, in a line to be followed; empty for nothing.
    """

    path: Path
    more: str = ""


@click.group(cls=PlainGroup, epilog="Example:\n\n  p2pnode completion install")
def completion() -> None:
    """Let the Tab key complete commands, options, models and peers."""


@completion.command(
    epilog="Examples:\n\n  p2pnode completion install\n\n  p2pnode completion install fish"
)
@_shell_argument
def install(shell: str | None) -> None:
    """Write the script of SHELL to where that looks for it; by default of the shell in $SHELL."""
    name = shell or _own_shell(os.environ)
    place = place_of(name, os.environ)
    script = script_of(name)
    if _read(place.path) == script:
        say(f"{place.path} is there already")
    else:
        _refuse_foreign(place.path)
        try:
            place.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place.path, script.encode(), _READABLE)
        except OSError as error:
            raise UserError(
                f"{place.path} cannot be written: {error.strerror or error}",
                hint=f"p2pnode completion show {name} prints it: put it where {name} reads it",
            ) from error
        say(f"wrote {place.path}")
    note(place.more or f"it works in every {name} that you open from now on")


@completion.command(epilog="Example:\n\n  p2pnode completion show bash")
@click.argument("shell", type=click.Choice(SHELLS))
def show(shell: str) -> None:
    """Print the script of SHELL, to be put where you like."""
    click.echo(script_of(shell), nl=False)


@completion.command(epilog="Example:\n\n  p2pnode completion remove")
@_shell_argument
def remove(shell: str | None) -> None:
    """Remove what install wrote, for SHELL or for all."""
    removed = False
    for name in (shell,) if shell else SHELLS:
        path = place_of(name, os.environ).path
        if not os.path.lexists(path):
            continue
        _refuse_foreign(path)
        try:
            path.unlink()
        except OSError as error:
            raise UserError(f"{path} cannot be removed: {error.strerror or error}") from error
        say(f"removed {path}")
        removed = True
    if not removed:
        note("nothing was installed")


def place_of(shell: str, environ: Mapping[str, str]) -> Place:
    """Return where ``shell`` looks for the completions of its owner.

    Raises:
        UserError: There is no home directory.
    """
    data = _directory(environ, "XDG_DATA_HOME", "~/.local/share")
    if shell == "fish":
        config = _directory(environ, "XDG_CONFIG_HOME", "~/.config")
        return Place(config / "fish" / "completions" / f"{_PROGRAM}.fish")
    if shell == "zsh":
        directory = data / "zsh" / "site-functions"
        return Place(directory / f"_{_PROGRAM}", _zsh_line(directory, environ))
    directory = _directory(environ, "BASH_COMPLETION_USER_DIR", str(data / "bash-completion"))
    path = directory / "completions" / _PROGRAM
    if any(Path(one).exists() for one in _BASH_PACKAGE):
        return Place(path)
    return Place(
        path, f"install your system's package bash-completion; or add to ~/.bashrc:  . {path}"
    )


def script_of(shell: str) -> str:
    """Return the script by which ``shell`` asks us."""
    kind = get_completion_class(shell)
    if kind is None:
        raise UserError(f"click completes nothing in {shell}", hint=f"one of: {', '.join(SHELLS)}")
    script = kind(click.Command(_PROGRAM), {}, _PROGRAM, COMPLETING).source()
    return script if script.endswith("\n") else f"{script}\n"


def _zsh_line(directory: Path, environ: Mapping[str, str]) -> str:
    """Say what zsh needs to look there, unless its owner's file has it."""
    settings = _directory(environ, "ZDOTDIR", "~") / ".zshrc"
    written = _read(settings) or ""
    short = f"~{str(directory).removeprefix(str(expanded(Path('~'))))}"
    if str(directory) in written or (short.startswith("~/") and short in written):
        return ""
    return f"add to {settings}, before the line with compinit:  fpath=({directory} $fpath)"


def _directory(environ: Mapping[str, str], variable: str, usual: str) -> Path:
    return expanded(Path(environ.get(variable) or usual))


def _own_shell(environ: Mapping[str, str]) -> str:
    """Return the shell of this account.

    Raises:
        UserError: Nobody says, or it is none that we know.
    """
    name = Path(environ.get("SHELL", "")).name
    if name in SHELLS:
        return name
    said = f"SHELL is {name}" if name else "SHELL is not set"
    raise UserError(f"{said}", hint=f"say which: p2pnode completion install {'|'.join(SHELLS)}")


def _read(path: Path) -> str | None:
    """Return a small file, or None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return file.read(_MOST_SCRIPT).decode("utf-8", "replace")
    except OSError:
        return None


def _refuse_foreign(path: Path) -> None:
    """Leave alone what we did not write.

    Raises:
        UserError: Somebody else's file is there.
    """
    if os.path.lexists(path) and COMPLETING not in (_read(path) or ""):
        raise UserError(f"{path} is there, and is none of ours", hint="move it away first")

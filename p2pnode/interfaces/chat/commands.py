"""What a person can ask of the chat itself: a line that begins with a slash and a word."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from p2pnode.errors import UserError

_SHOWN = 40  # letters of a word that is no command
_COMMAND: Final = re.compile(r"/(\?|[A-Za-z-]+)(?:\s+(.*))?", re.DOTALL)
_ALIASES: Final = MappingProxyType({"?": "help", "exit": "bye", "quit": "bye"})


@dataclass(frozen=True, slots=True)
class Command:
    """A command as it was typed: its name without the slash, and what stands behind it."""

    name: str
    rest: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What a command takes, and what it does.

    Attributes:
        takes: What stands behind it, as the help shows it; empty for nothing.
        does: A line.
        needs: Whether it means nothing without what it takes.
    """

    takes: str
    does: str
    needs: bool = False


COMMANDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "help": Kind("", "show this"),
        "bye": Kind("", "end the conversation, as Ctrl-D on an empty line does"),
        "retry": Kind("", "ask the last question again, in place of its answer"),
        "undo": Kind("", "take back the last question, /reset, /system or /load"),
        "reset": Kind("", "begin anew; the system prompt stays"),
        "system": Kind('[TEXT|@FILE|""]', 'show, set or (with "") remove the system prompt'),
        "set": Kind("[NAME VALUE]", "show or change how answers are made; VALUE default for that"),
        "plan": Kind("", "show who computed the last answer, and why they"),
        "peers": Kind("", "list the peers of the swarm"),
        "save": Kind("[--replace] FILE", "keep the conversation in a file, as JSON", needs=True),
        "load": Kind("FILE", "go on with a conversation that was kept", needs=True),
    }
)


def parse_command(text: str) -> Command | None:
    """Return the command that ``text`` is, or None for a message to the model.

    ``/usr/bin`` and ``/ 2`` are messages: a command is a slash and one word of letters.

    Raises:
        UserError: There is no such command, or it takes nothing, or it lacks what it takes.
    """
    match = _COMMAND.fullmatch(text.strip())
    if match is None:
        return None
    word, rest = match[1].lower(), (match[2] or "").strip()
    name = _ALIASES.get(word, word)
    kind = COMMANDS.get(name)
    if kind is None:
        raise _unknown(word)
    if rest and not kind.takes:
        raise UserError(f"/{name} takes nothing behind it", hint=f"/{name}")
    if kind.needs and not rest:
        raise UserError(f"/{name} needs {kind.takes.split()[-1]}", hint=f"/{name} {kind.takes}")
    return Command(name, rest)


def nearest(word: str, known: Mapping[str, object]) -> str | None:
    """Return what of ``known`` may have been meant, or None where nothing is near."""
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)


def help_text() -> str:
    """Return every command, and the keys, in lines."""
    calls = {f"/{name} {kind.takes}".rstrip(): kind.does for name, kind in COMMANDS.items()}
    rows = {**calls, **_KEYS}
    width = max(map(len, rows))
    return "\n".join(f"  {call:<{width}}  {does}" for call, does in rows.items())


_KEYS: Final = MappingProxyType(
    {
        "Alt-Enter": 'a new line; so does a \\ at a line\'s end, and all between two """',
        "Ctrl-C": "stop the answer; at the prompt, clear the line",
        "Up, Ctrl-R": "what was said before; search it",
    }
)


def _unknown(word: str) -> UserError:
    near = nearest(word, COMMANDS)
    meant = f"/{near}" if near else "/help lists them"
    return UserError(
        f"there is no command /{word[:_SHOWN]}",
        hint=f"{meant}; a space before the slash makes it a message",
    )

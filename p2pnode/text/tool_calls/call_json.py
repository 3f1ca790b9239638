"""A call of a tool out of its JSON."""

import json
import re
from collections.abc import Iterator
from typing import Final, NoReturn

from p2pnode.terminal import whole
from p2pnode.text.tool_calls.json_scan import SPACES, JsonScan
from p2pnode.text.tool_calls.pieces import ToolCall

LONGEST_NAME: Final = 256
"""Characters of a tool's name; OpenAI's API knows names of up to 64."""

_NOTHING: Final = "{}"
_SIGNS: Final = re.compile(r"[ \t\r\n,:]*")
_STRING_OR_SPACE: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[ \t\r\n]+', re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f]")


def call_of(written: str, *, marked: bool) -> ToolCall | None:
    """Return the call that a JSON object is, or None.

    It has a ``name`` and an object under ``arguments`` or ``parameters``; other members do not
    count. In a call that is marked as such the object may be absent, null, or within a string.

    Args:
        written: An object whose brackets :class:`.json_scan.JsonScan` has followed.
        marked: Whether something around it says that it is a call.
    """
    if not _is_object(written):
        return None
    members = {key: (value, spelled) for key, value, spelled in _members(written)}
    name, _ = members.get("name", (None, ""))
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or whole(name) != name:
        return None
    given, spelled = members.get("arguments") or members.get("parameters") or (None, "")
    if isinstance(given, dict):
        return ToolCall(name, _compact(spelled))
    if not marked:
        return None
    arguments = _NOTHING if given is None else None
    if isinstance(given, str):
        arguments = object_text(given) if given else _NOTHING
    return None if arguments is None else ToolCall(name, arguments)


def object_text(text: str) -> str | None:
    """Return a JSON object without the space that means nothing; None if ``text`` is none.

    One that is too long or nested too deep is none. Strings may hold line breaks, as models write
    them; they come out escaped.
    """
    text = text.strip(SPACES)
    if JsonScan().push(text) != len(text) or not _is_object(text):
        return None
    return _compact(text)


def _is_object(text: str) -> bool:
    try:
        return isinstance(_DECODER.decode(text), dict)
    except ValueError:
        return False


def _members(text: str) -> Iterator[tuple[str, object, str]]:
    """Yield each key of a JSON object, its value, and how that is spelled."""
    at = _behind(text, 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        at = _behind(text, end)
        value, end = _DECODER.raw_decode(text, at)
        yield key, value, text[at:end]
        at = _behind(text, end)


def _behind(text: str, at: int) -> int:
    found = _SIGNS.match(text, at)
    return at if found is None else found.end()


def _compact(text: str) -> str:
    return _STRING_OR_SPACE.sub(
        lambda found: _CONTROL.sub(_escaped, found[0]) if found[0][0] == '"' else "", text
    )


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _no_number(spelled: str) -> int:
    """Stand for any number: its spelling is kept, and its value, which may be huge, not wanted."""
    del spelled
    return 0


def _refuse(spelled: str) -> NoReturn:
    raise ValueError(f"{spelled} is no JSON")


_DECODER: Final = json.JSONDecoder(
    strict=False, parse_int=_no_number, parse_float=_no_number, parse_constant=_refuse
)

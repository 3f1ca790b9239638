"""What the guide to trouble quotes is what the program says."""

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "trouble.md").read_text("utf-8")
OF_THE_SYSTEM = {"No space left"}
KNOWN, OWN = 8, 6
"""Letters by which the start of a message is known, and a message with holes: fewer fit many."""

HOLE = "\0"
"""What a message puts in when it is said: a name, a number, another text."""


def templates(source: str) -> Iterator[str]:
    """Yield each text of a program, as it is joined from its parts, with its holes."""
    tree = ast.parse(source)
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for one in joined for part in one.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(map(_part, node.values))
        elif id(node) not in parts and isinstance(node, ast.Constant):
            yield re.sub(r"%[sd]", HOLE, node.value if isinstance(node.value, str) else "")


def _part(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else HOLE


@cache
def our_templates() -> tuple[str, ...]:
    """Return the texts of all modules, each once; read by who asks, not by who collects tests."""
    sources = sorted((ROOT / "p2pnode").rglob("*.py"))
    texts = (text for path in sources for text in templates(path.read_text("utf-8")))
    return tuple(dict.fromkeys(texts))


def quoted() -> list[str]:
    rows = [line for line in GUIDE.splitlines() if line.startswith("| ")]
    return [said for row in rows for said in re.findall(r'"([^"]+)"', row.split("|")[1])]


def is_said(quote: str, said: Sequence[str]) -> bool:
    """Whether ``quote`` is a part of one message of ``said``, its holes filled."""
    beginnings = [template.split(HOLE)[0] for template in said]
    return any(_is_part(quote, template, beginnings) for template in said)


def _is_part(quote: str, template: str, beginnings: list[str]) -> bool:
    """Whether some filling of the holes has ``quote`` in it, more than half of it in known words.

    Known are the template's own, and what fills a hole where a message begins with that.
    """
    pieces = template.split(HOLE)
    return any(
        _begins_and_ends(quote, pieces[first : last + 1], beginnings)
        for first in range(len(pieces))
        for last in range(first, len(pieces))
    )


def _begins_and_ends(quote: str, pieces: list[str], beginnings: list[str]) -> bool:
    """Whether ``quote`` begins in the first of ``pieces`` and ends in the last, holes between."""
    if len(pieces) == 1:
        return quote in pieces[0]
    begin, *middle, end = pieces
    if not all(words in quote for words in middle):
        return False  # as with nearly all; a pattern takes longer to compile
    filled = r"([\w .,:\[\]()-]{1,40})"
    pattern = re.compile(filled + "".join(re.escape(words) + filled for words in middle))
    for cut in range(len(quote)):
        if not begin.endswith(quote[:cut]):
            continue
        for stop in range(cut + 1, len(quote) + 1):
            if not end.startswith(quote[stop:]):
                continue
            own = cut + sum(map(len, middle)) + len(quote) - stop
            found = pattern.fullmatch(quote[cut:stop]) if own >= OWN else None
            if found is None:
                continue
            strange = [words for words in found.groups() if not _is_known(words, beginnings)]
            if 2 * sum(map(len, strange)) < len(quote):
                return True
    return False


def _is_known(words: str, beginnings: list[str]) -> bool:
    return len(words) >= KNOWN and any(known.startswith(words) for known in beginnings)


@pytest.mark.parametrize("said", quoted())
def test_a_quoted_message_is_in_the_program(said: str) -> None:
    assert said in OF_THE_SYSTEM or is_said(said, our_templates()), f"nobody says {said!r}"


def test_messages_are_quoted() -> None:
    assert len(quoted()) > 15


PROGRAM = """
def say(count, name, layers):
    tell(f"the oldest {count} turns left " f"the conversation")
    tell("no peer serves "
         "layers " + layers)
    log.warning("%s is gone: %s", name, count)
    tell(f"this is what {name} says: {layers}")
    tell("two machines use your key")
    tell("two nodes say hello")
"""


@pytest.mark.parametrize(
    "quote",
    [
        "the oldest 4 turns left the conversation",
        "no peer serves layers",
        "attic is gone: dead",
        "what NAME says: two machines use",  # a message within another
        "turns left",
    ],
)
def test_what_one_message_says_is_found(quote: str) -> None:
    assert is_said(quote, list(templates(PROGRAM)))


@pytest.mark.parametrize(
    "quote",
    [
        "the oldest 4 turns say hello",  # the front of one message and the rest of another
        "no peer serves two machines",
        "what NAME says: three machines use your key",
        "the oldest turns of the conversation left",
        "the oldest 4 chats left the conversation",
        "no peer is gone: today",
        "says: three nodes say hello",
    ],
)
def test_what_no_message_says_is_not_found(quote: str) -> None:
    assert not is_said(quote, list(templates(PROGRAM)))

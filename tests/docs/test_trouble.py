"""What the guide to trouble quotes is what the program says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "trouble.md").read_text("utf-8")
OF_THE_SYSTEM = {"No space left"}
LITERALS = [
    node.value
    for path in sorted((ROOT / "p2pnode").rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
]


def quoted() -> list[str]:
    rows = [line for line in GUIDE.splitlines() if line.startswith("| ")]
    return [said for row in rows for said in re.findall(r'"([^"]+)"', row.split("|")[1])]


@pytest.mark.parametrize("said", quoted())
def test_a_quoted_message_is_in_the_program(said: str) -> None:
    if said in OF_THE_SYSTEM:
        return
    pieces = [piece.strip() for piece in re.split(r"\[?\d+(?:, \d+\))?|NAME", said)]
    for piece in filter(None, pieces):
        assert is_said(piece), f"nobody says {piece!r}"


def is_said(piece: str) -> bool:
    """Whether the program has these words, or puts them together from two of its literals."""
    if any(piece in literal for literal in LITERALS):
        return True
    return any(
        any(literal.endswith(piece[:cut]) for literal in LITERALS)
        and any(literal.startswith(piece[cut:]) for literal in LITERALS)
        for cut in range(4, len(piece) - 4)
    )


def test_messages_are_quoted() -> None:
    assert len(quoted()) > 15

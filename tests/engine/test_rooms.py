"""Engines share what lies above them, and none reaches into another's room."""

import ast
from pathlib import Path

import pytest

_ROOMS = ("numpy", "ggml", "torch", "jax", "bert")
_ENGINE = Path(__file__).parents[2] / "p2pnode" / "engine"


@pytest.mark.parametrize("room", _ROOMS)
def test_an_engine_knows_no_other(room: str) -> None:
    others = tuple(f"p2pnode.engine.{other}." for other in _ROOMS if other != room)
    for path in (_ENGINE / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not f"{node.module}.".startswith(others), f"{path.name}: {node.module}"

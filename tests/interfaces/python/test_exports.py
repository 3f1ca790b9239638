"""What ``p2pnode`` itself offers to programs: typed, and imported only when it is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import p2pnode

PACKAGE = Path(p2pnode.__file__).parent


def test_type_checkers_read_what_is_exported() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    found = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert found == vars(p2pnode)["_FOUND_IN"]


def test_all_of_it_is_there() -> None:
    assert set(vars(p2pnode)["__all__"]) <= set(dir(p2pnode))
    for name in vars(p2pnode)["__all__"]:
        assert getattr(p2pnode, name) is not None


def test_nothing_else_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nod'"):
        getattr(p2pnode, "Nod")  # noqa: B009 -- the type checker knows


@pytest.mark.parametrize(
    ("line", "spared"),
    [
        ("import p2pnode", {"trio", "numpy", "click", "socket", "dataclasses"}),
        ("from p2pnode import Client; Client()", {"trio", "numpy", "click", "rich", "textual"}),
        ("from p2pnode import Answer, Token, UserError", {"trio", "numpy", "click", "socket"}),
    ],
)
def test_a_program_imports_no_more_than_it_uses(line: str, spared: set[str]) -> None:
    script = f"{line}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not spared & set(done.stdout.decode().split())

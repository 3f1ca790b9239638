"""Options for a node to start, where one runs that would ignore them."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from p2pnode.errors import UsageError
from p2pnode.interfaces.cli import ask_commands, own_node
from p2pnode.interfaces.cli.ask_commands import chat, generate
from p2pnode.interfaces.cli.settings import FreshNodeOption

COMMANDS = {"generate": (generate, ["Why?"]), "chat": (chat, [])}
FRESH = [
    (name, option)
    for name, (command, _) in COMMANDS.items()
    for option in command.params
    if isinstance(option, FreshNodeOption)
]


@pytest.mark.parametrize(("name", "option"), FRESH, ids=lambda one: str(getattr(one, "name", one)))
def test_a_running_node_would_ignore_it(
    name: str, option: click.Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_node, "_is_running", lambda _: True)
    command, words = COMMANDS[name]
    given = [*words, option.opts[0], "x", "--state", str(tmp_path)]
    done = CliRunner().invoke(command, given)
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).endswith(f"already, and would ignore {option.opts[0]}")


class Looked(dict[str, Any]):
    """Notes which options were looked at."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_that_makes_a_fresh_node_is_marked_so(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, words = COMMANDS[name]
    looked: list[Looked] = []
    make = ask_commands._fresh

    def fresh(chosen: dict[str, Any]) -> Any:
        looked.append(Looked(chosen))
        return make(looked[0])

    def some_node(*_: object, **__: object) -> None:
        raise UsageError("far enough")

    monkeypatch.setattr(ask_commands, "_fresh", fresh)
    monkeypatch.setattr(ask_commands, "some_node", some_node)
    CliRunner().invoke(command, words)
    marked = {str(option.name) for where, option in FRESH if where == name}
    assert looked[0].names - {"state"} == marked
    shown = command.get_help(click.Context(command))
    assert shown.count("For a fresh node.") == len(marked)

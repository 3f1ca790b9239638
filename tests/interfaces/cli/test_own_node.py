"""What is looked at before a node is started for a command, and when a conversation ends."""

from pathlib import Path
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner

from p2pnode.errors import ModelError, UsageError, UserError
from p2pnode.interfaces.cli import ask_commands, node_commands, own_node
from p2pnode.interfaces.cli.ask_commands import chat, generate
from p2pnode.interfaces.cli.node_commands import up
from p2pnode.interfaces.cli.node_options import FreshNodeOption
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.text.template import NO_TEMPLATE

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
    # A model may be one of a running node's, too.
    assert looked[0].names - {"state", "model"} == marked
    shown = command.get_help(click.Context(command))
    assert shown.count("For a fresh node.") == len(marked)


@pytest.mark.parametrize("words", [["generate", "Hi"], ["chat"]], ids=str)
def test_a_model_that_cannot_chat_is_refused_before_it_is_loaded(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a node was started")

    monkeypatch.setattr(own_node, "_running", started)
    write_tiny_gguf(tmp_path / "tiny.gguf", template="")
    command, _ = COMMANDS[words[0]]
    where = ["--model", str(tmp_path / "tiny.gguf"), "--state", str(tmp_path / "state")]
    done = CliRunner().invoke(command, [*words[1:], *where])
    assert isinstance(done.exception, ModelError), done.exception
    assert str(done.exception) == NO_TEMPLATE
    raw = CliRunner().invoke(generate, ["Hi", "--raw", *where])
    assert "a node was started" in str(raw.exception)


@pytest.mark.parametrize(
    ("said", "is_there", "asked"),
    [
        (NO_TEMPLATE, True, 1),
        ("this node has no model", True, 1),
        ("the node was killed before it answered (process 4711)", False, 1),
        ("no peer serves layers [0, 10)", True, 2),
    ],
)
def test_a_conversation_ends_where_no_further_message_would_fare_better(
    said: str, is_there: bool, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    class Client:
        def __init__(self, path: Path, timeout: float | None) -> None: ...

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def call(self, method: str, params: dict[str, Any], hear: object) -> None:
            prompts.append(params["messages"][-1]["content"])
            raise UserError(said)

    monkeypatch.setattr(own_node, "_is_running", lambda _: True)
    monkeypatch.setattr(own_node, "ControlClient", Client)
    monkeypatch.setattr(own_node, "answers", lambda _: is_there)
    done = CliRunner().invoke(chat, ["--lines"], input="one\ntwo\n")
    assert len(prompts) == asked
    assert (str(done.exception) == said) == (asked == 1)


@pytest.mark.parametrize(("pre", "is_told"), [("default", True), ("smollm", False)])
@pytest.mark.parametrize("name", [*COMMANDS, "up"])
def test_whoever_starts_a_node_hears_of_an_untested_pre_tokenizer(
    name: str, pre: str, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def running(*_: object) -> None:
        raise UserError("a node would run now")

    monkeypatch.setattr(own_node, "_running", running)
    monkeypatch.setattr(node_commands, "run_trio", running)
    write_tiny_gguf(tmp_path / "m.gguf", pre=pre)
    command, words = {**COMMANDS, "up": (up, [])}[name]
    given = ["--model", str(tmp_path / "m.gguf"), "--state", str(tmp_path / "state")]
    done = CliRunner().invoke(command, [*words, *given])
    assert str(done.exception) == "a node would run now"
    assert ("the model's pre-tokenizer default is untested" in done.stderr) == is_told


@pytest.mark.parametrize("model", ["none", "m.gguf", "qwen3-8b"])
@pytest.mark.parametrize("device", ["tpu", "CPU", "vulkan:99999999999"])
def test_a_device_that_is_none_is_refused_where_nothing_computes_too(
    device: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))  # nothing is fetched for it
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    write_tiny_gguf(tmp_path / "m.gguf")
    where = str(tmp_path / model) if model.endswith(".gguf") else model
    given = ["--layers", "none", "--model", where, "--device", device]
    done = CliRunner().invoke(up, [*given, "--state", str(tmp_path / "state")])
    assert isinstance(done.exception, UsageError)
    assert f"there is no device {device!r}" in str(done.exception)
    assert not (tmp_path / "state").exists()

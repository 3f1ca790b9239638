"""Flags beat the environment, that beats the file, that beats the defaults; mistakes say where."""

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import ask_commands, node_commands, own_node
from p2pnode.interfaces.cli.commands import COMMANDS, run

Called = tuple[int, str, str]
Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line; return its exit status and both its outputs."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # run() sets it
    monkeypatch.delenv("P2PNODE_HOME", raising=False)
    monkeypatch.delenv("P2PNODE_DEBUG", raising=False)

    def call(*words: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["p2pnode", *words])
        try:
            status = run()
        except SystemExit as end:  # a call for help
            status = int(end.code or 0)
        told = capsys.readouterr()
        return status, told.out, told.err

    return call


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the environment names."""
    path = tmp_path / "settings.toml"
    path.touch()
    monkeypatch.setenv("P2PNODE_CONFIG", str(path))
    return path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ``up`` was told, in place of starting a node."""
    told: list[Any] = []

    def settings_of(options: Any) -> None:
        told.append(options)
        raise UserError("far enough")

    monkeypatch.setattr(node_commands, "settings_of", settings_of)
    return told


def test_the_order_of_those_who_say_something(
    call: Call, file: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    call("up")
    file.write_text('port = 1\nmodel = "none"\n[up]\nport = 2\nmdns = false\npeer = ["a:1"]\n')
    call("up")
    monkeypatch.setenv("P2PNODE_UP_PORT", "3")
    monkeypatch.setenv("P2PNODE_UP_MDNS", "yes")
    monkeypatch.setenv("P2PNODE_UP_PEER", "b:1 c:1")
    call("up")
    call("up", "--port", "4", "--no-mdns", "--peer", "d:1")
    assert [one.port for one in started] == [4747, 2, 3, 4]
    assert [one.mdns for one in started] == [True, False, True, False]
    assert [one.peer for one in started] == [(), ("a:1",), ("b:1", "c:1"), ("d:1",)]
    assert [one.model for one in started] == [("smollm2-135m",), ("none",), ("none",), ("none",)]


def test_a_file_can_be_named_in_the_call(
    call: Call, file: Path, started: list[Any], tmp_path: Path
) -> None:
    file.write_text("port = 1")
    (tmp_path / "other.toml").write_text("port = 2")
    call("--config", str(tmp_path / "other.toml"), "up")
    assert started[0].port == 2
    status, _, told = call("--config", str(tmp_path / "absent.toml"), "up")
    assert status == 1
    assert f"{tmp_path}/absent.toml: No such file" in told
    assert len(started) == 1
    told = call("up", "--config", "x")[2]
    assert told.endswith("stands before the command\n  try: p2pnode --config FILE up\n")


def test_the_state_of_the_environment_beats_that_of_the_file(
    call: Call, file: Path, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f'state = "{tmp_path}/kept"')
    call("up")
    assert started[0].state == tmp_path / "kept"
    monkeypatch.setenv("P2PNODE_HOME", str(tmp_path / "home"))
    call("up")
    assert started[1].state is None  # so P2PNODE_HOME is taken
    told = json.loads(call("config", "show", "stop", "--json")[1])["settings"]
    assert told[0]["value"] == str(tmp_path / "home")
    assert told[0]["place"] == "P2PNODE_HOME"


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        ("[up]\nport = 99999", (), ":2: up.port: 99999 is not in the range 0<=x<=65535."),
        ("[up]\n\nprot = 1", (), ":3: up.prot is no setting\n  try: write port"),
        ("[up]\nport = '1'", (), ":2: up.port is a whole number, not '1'"),
        ("port = -1", (), ":1: port: -1 is not in the range"),
        ("[upp]", (), ":1: [upp] is no command that keeps settings\n  try: write up"),
        ("[up]\n[up]", (), ":2:4: not TOML: Cannot declare ('up',) twice"),
        ("[up]\nengine = 'x'", (), ":2: up.engine: 'x' is not one of"),
        ("[up]\nkv-memory = 999999999", (), ":2: up.kv-memory: 999999999 MiB is more than"),
        ("[up]\nname = ''", ("--model", "none"), ":2: up.name is not a line of printable text"),
        ("[up]\nlayers = '5:3'", (), ":2: not a run of layers: '5:3'"),
        ("[up]\nlayers='0:3'", ("--max-layers", "3"), ":2: --max-layers goes with up.layers auto"),
        ("[up]\nthreads = 999", ("--model", "none"), ":2: 999 threads cannot compute on"),
        ("[up]\ndevice='tpu'", ("--model", "none"), ":2: there is no device 'tpu'"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(
    text: str, words: tuple[str, ...], told: str, call: Call, file: Path
) -> None:
    file.write_text(text)
    status, out, said = call("up", *words)
    assert status in (1, 2)
    assert said.startswith(f"p2pnode: {file}{told}")
    assert len(said.splitlines()) <= 2
    assert out == ""


def test_a_mistake_in_a_variable_names_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_UP_PORT", "x")
    assert call("up")[2].startswith("p2pnode: P2PNODE_UP_PORT: 'x' is not a valid integer")
    monkeypatch.setenv("P2PNODE_UP_PORT", "0")
    monkeypatch.setenv("P2PNODE_UP_NAME", "\a")
    assert "P2PNODE_UP_NAME is not a line" in call("up", "--model", "none")[2]
    assert "--port" in call("up", "--port", "x")[2]


def test_a_mistake_in_the_table_of_another_command_stops_nobody(
    call: Call, file: Path, started: list[Any]
) -> None:
    file.write_text("[generate]\ntemprature = 1\n")
    assert call("up")[2] == "p2pnode: far enough\n"
    assert call("config", "check")[0] == 1


def test_what_a_running_node_would_ignore_may_stand_in_a_file(
    call: Call, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('model = "gemma3-270m"\n[generate]\npeer = ["a:1"]\nmax-tokens = 7\n')
    asked: list[dict[str, Any]] = []

    def stream(client: object, params: dict[str, Any], **_: object) -> None:
        asked.append(params)
        raise UserError("far enough")

    monkeypatch.setattr(own_node, "_is_running", lambda _: True)
    monkeypatch.setattr(own_node.Host, "client", lambda _: nullcontext())
    monkeypatch.setattr(ask_commands, "_stream", stream)
    assert call("generate", "hi", "--no-stdin")[2] == "p2pnode: far enough\n"
    assert asked[0]["max_tokens"] == 7
    assert "model" not in asked[0]  # that of the file is for a node to start
    call("generate", "hi", "--no-stdin", "--model", "x")
    assert asked[1]["model"] == "x"
    assert "would ignore --peer" in call("generate", "hi", "--no-stdin", "--peer", "x")[2]


@pytest.mark.parametrize(
    ("text", "variable", "words", "schema", "json_mode"),
    [
        ("json-mode = true", "", (), False, True),
        ("json-mode = true", "", ("--schema", "{}"), True, False),
        ("schema = '{}'", "", ("--json-mode",), False, True),
        ("schema = '{}'", "P2PNODE_GENERATE_JSON_MODE", (), False, True),
    ],
)
def test_of_two_forms_the_one_said_closer_to_the_call_holds(
    text: str, variable: str, words: tuple[str, ...], schema: bool, json_mode: bool,
    call: Call, file: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file.write_text(f"[generate]\n{text}\n")
    if variable:
        monkeypatch.setenv(variable, "1")
    chosen: list[dict[str, Any]] = []

    def fresh(options: dict[str, Any]) -> None:
        chosen.append(options)
        raise UserError("far enough")

    monkeypatch.setattr(ask_commands, "_fresh", fresh)
    call("generate", "hi", "--no-stdin", *words)
    assert (chosen[0]["schema"] is not None, chosen[0]["json_mode"]) == (schema, json_mode)


def test_two_forms_in_one_place_are_refused(call: Call, file: Path) -> None:
    file.write_text("[generate]\njson-mode = true\nschema = '{}'\n")
    assert "do not go together" in call("generate", "hi", "--no-stdin")[2]


BROKEN = ["= broken", "[up\n", "\0", "[nosuch]", "a = " + "[" * 5000]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_with_a_broken_file_what_says_so_works(text: str, call: Call, file: Path) -> None:
    file.write_text(text)
    for words in (("--help",), ("up", "--help"), ("--version",), ("completion", "show", "fish")):
        status, out, told = call(*words)
        assert (status, told) == (0, ""), words
        assert out
    assert call("config", "path")[1] == f"{file}\n"
    status, out, told = call("config", "show", "up")
    assert status == 0
    assert "kv-memory" in out
    assert str(file) in told
    status, out, told = call("config", "check")
    assert (status, out) == (1, "")
    assert told.startswith(f"p2pnode: {file}:")
    for words in (("stop",), ("bench", "idle"), ("generate", "hi")):
        status, _, told = call(*words)
        assert status == 1
        assert told.startswith(f"p2pnode: {file}:")


@pytest.mark.parametrize("kind", ["directory", "fifo", "closed", "latin-1", "large"])
def test_what_is_no_settings_file_is_one_line(kind: str, call: Call, file: Path) -> None:
    file.unlink()
    match kind:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)
        case "closed":
            file.symlink_to(file)
        case "latin-1":
            file.write_bytes("[up]\nname = 'k\xfcche'".encode("latin-1"))
        case _:
            file.write_bytes(b"#" * (1 << 20) + b"##")
    for words in (("peers",), ("config", "check")):
        status, _, told = call(*words)
        assert status == 1
        assert told.startswith(f"p2pnode: {file}:")
        assert len(told.splitlines()) <= 3
    assert call("config", "show", "up")[0] == 0


def test_show_tells_each_value_and_its_source(
    call: Call, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("\n[up]\nport = 7\n")
    monkeypatch.setenv("P2PNODE_UP_KV_MEMORY", "99")
    status, out, told = call("config", "show", "up")
    assert (status, told) == (0, "")
    lines = [line.split(maxsplit=3) for line in out.splitlines()]
    assert ["up", "port", "7", f"{file}:3"] in lines
    assert ["up", "kv-memory", "99", "environment variable P2PNODE_UP_KV_MEMORY"] in lines
    assert ["up", "mdns", "true", "default"] in lines
    facts = json.loads(call("config", "show", "--json")[1])
    assert facts["file"] == str(file)
    assert facts["problems"] == []
    assert {row["command"] for row in facts["settings"]} > {"up", "join", "generate", "chat"}
    assert "bench takes what it is told" in call("config", "show", "bench")[2]
    assert "no command with settings" in call("config", "show", "nosuch")[2]


def test_init_writes_a_file_and_never_over_one(call: Call, file: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "new" / "config.toml"
    assert call("--config", str(fresh), "config", "init")[0] == 0
    assert call("--config", str(fresh), "config", "check")[1] == f"{fresh}: all is well\n"
    file.write_text("# mine")
    status, _, told = call("config", "init")
    assert (status, file.read_text()) == (1, "# mine")
    assert "is there already" in told
    assert call("config", "init", "--force")[0] == 0
    assert file.read_text() == fresh.read_text()
    file.unlink()
    file.mkdir()
    assert "is no file" in call("config", "init", "--force")[2]
    assert "cannot be written" in call("--config", "/dev/null/x", "config", "init")[2]


def test_check_counts_and_finds_stray_variables(
    call: Call, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PNODE_UP_PROT", "1")
    monkeypatch.setenv("P2PNODE_CHAT_TEMPERATURE", "hot")
    file.write_text("[up]\nport = -1\n")
    status, _, told = call("config", "check")
    assert status == 1
    assert "the variable P2PNODE_UP_PROT sets nothing\n  try: P2PNODE_UP_PORT" in told
    assert "P2PNODE_CHAT_TEMPERATURE: 'hot' is not a valid float" in told
    assert told.endswith("3 problems\n")
    facts = json.loads(call("config", "check", "--json")[1])
    assert [len(facts["problems"]), facts["ok"]] == [3, False]


def test_without_a_file_all_is_as_ever(
    call: Call, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("P2PNODE_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    usual = tmp_path / "p2pnode" / "config.toml"
    call("up")
    assert started[0].port == 4747
    status, out, told = call("config", "path")
    assert (status, out) == (0, f"{usual}\n")
    assert "config init" in told
    assert "not there, which is no mistake" in call("config", "check")[1]
    assert call("config", "init")[0] == 0
    assert usual.is_file()


def test_no_command_fails_where_the_file_is_empty(call: Call, file: Path) -> None:
    for name in COMMANDS:
        assert call(name, "--help")[0] == 0

"""What a settings file says for a command, and what is wrong with it: line and nearest name."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError, UserError
from p2pnode.interfaces.cli.commands import COMMANDS, cli
from p2pnode.interfaces.config.config_file import Choice, ConfigFile, choose
from p2pnode.interfaces.config.kinds import as_toml, default_of
from p2pnode.interfaces.config.report import Known, in_words, problems, rows
from p2pnode.interfaces.config.settings import all_settings
from p2pnode.interfaces.config.template import template
from p2pnode.toml.file import read_toml

KNOWN = all_settings(cli)


def read(path: Path, text: str) -> ConfigFile:
    path.write_text(text, "utf-8")
    return ConfigFile.read(Choice(path, is_named=True))


def wrong(path: Path, text: str) -> list[tuple[str, str]]:
    """Return each problem without the path before its line, and its hint."""
    found = problems(read(path, text), cli, KNOWN)
    return [(str(one).removeprefix(f"{path}:"), one.hint) for one in found]


def test_a_table_beats_what_stands_above_it(tmp_path: Path) -> None:
    file = read(tmp_path / "x.toml", 'model = "a"\nport = 1\n[up]\nmodel = "b"\n')
    given = {one.setting.key: one for one in file.given(("up",), KNOWN["up",])}
    assert {key: one.value for key, one in given.items()} == {"model": ["b"], "port": 1}
    assert given["model"].place == f"{tmp_path / 'x.toml'}:4"
    assert given["port"].place == f"{tmp_path / 'x.toml'}:2"
    assert given["port"].name == "port"
    assert list(file.given(("stop",), KNOWN["stop",])) == []


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ("prot = 1", "1: prot is no setting that stands above the tables", "port"),
        ("temperature = 1", "1: temperature is no setting that stands", "one of: state, model,"),
        ("[upp]", "1: [upp] is no command that keeps settings", "up"),
        ("\n[bench.hop]", "2: [bench] takes no settings", "remove the table"),
        ("up = 1", "1: up is a table: write [up]", ""),
        ("[up]\n\nprot = 1", "3: up.prot is no setting", "port"),
        ("up.prot = 1", "1: up.prot is no setting", "port"),
        ("[up]\n'kv memory' = 1", "2: up.kv memory is no setting", "kv-memory"),
        (
            '["up"]\n"p\\u006frt" = "1"',
            "2: up.port is a whole number, not '1'",
            "p2pnode up --help",
        ),
        ("[up]\nas-json = true", "2: up.as-json is no setting", ""),
        ("[up]\nport = 99999", "2: up.port: 99999 is not in the range 0<=x<=65535.", "--help"),
        ("[up]\nport = 1.5", "2: up.port is a whole number, not 1.5", "--help"),
        ("[up]\nport = {a = 1}", "2: up.port is a whole number, not {'a': 1}", "--help"),
        ("[up]\nmdns = 'no'", "2: up.mdns is true or false, not 'no'", "--help"),
        ("[up]\nengine = 'cuda'", "2: up.engine: 'cuda' is not one of 'auto', 'ggml'", "--help"),
        ("[up]\nlayers = '5:3'", "2: up.layers: not a run of layers: '5:3'", "--layers auto"),
        ("[up]\nname = '" + "x" * 40 + "'", "2: up.name: has 40 bytes", "shorter"),
        ("[up]\npeer = 'a:1'", '2: up.peer is a list, such as ["HOST:PORT"]', "--help"),
        ("[up]\npeer = ['a b']", "2: up.peer: no host can be called 'a b'", "HOST:PORT"),
        ("[up]\nthreads = 1000", "2: up.threads: 1000 threads cannot compute on", "fewer"),
        ("[up]\nport = 1979-05-27", "2: up.port is a whole number, not datetime", "--help"),
        ("[generate]\ntemperature = nan", "2: generate.temperature: not a number", "--help"),
        ("[generate]\ntemperature = true", "2: generate.temperature is a number, not true", ""),
        ("state = ''", "1: state: an empty path names nothing", "p2pnode up --help"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(
    text: str, told: str, hint: str, tmp_path: Path
) -> None:
    found = wrong(tmp_path / "x.toml", text)
    assert len(found) == 1, found
    assert found[0][0].startswith(told)
    assert hint in found[0][1]
    assert "\n" not in found[0][0]


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = "prot = 1\n[up]\nport = -1\nnmae = 'x'\n[chat]\ntop-p = 0\n[stop]\nnow = true\n"
    told = [what.split(":")[0] for what, _ in wrong(tmp_path / "x.toml", text)]
    assert sorted(told) == ["1", "3", "4", "6", "8"]


def test_which_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    usual = choose(None, os.environ)
    assert usual == Choice(tmp_path / "config" / "p2pnode" / "config.toml", is_named=False)
    assert not ConfigFile.read(usual).is_there
    assert choose("~/x.toml", os.environ) == Choice(tmp_path / "x.toml", is_named=True)
    with pytest.raises(ConfigError, match="No such file") as caught:
        ConfigFile.read(choose("~/x.toml", os.environ))
    assert "config init" in caught.value.hint
    with pytest.raises(ConfigError, match="empty"):
        choose("", os.environ)


def test_a_directory_in_the_usual_place_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        ConfigFile.read(Choice(tmp_path, is_named=False))


def test_the_template_says_nothing_until_its_lines_are_uncommented(tmp_path: Path) -> None:
    text = template(KNOWN)
    file = read(tmp_path / "x.toml", text)
    assert not any(row.source == "file" for row in rows(file, KNOWN, {}))
    assert wrong(tmp_path / "x.toml", text) == []
    used = re.sub(r"^#(?=\w)", "", text, flags=re.MULTILINE)
    whole = read(tmp_path / "y.toml", used)
    found = [row for row in rows(whole, KNOWN, {}) if row.source == "file"]
    assert len(found) > 40
    for row in found:
        if row.key != "state":  # which is an example
            option = KNOWN[tuple(row.command.split())][row.key].option
            assert row.value == default_of(option), row
    assert wrong(tmp_path / "y.toml", used) == []


def test_every_setting_stands_in_the_template() -> None:
    text = template(KNOWN)
    for path, settings in KNOWN.items():
        table = text.split(f"\n[{'.'.join(path)}]\n")[1].split("\n[")[0]
        for key in settings:
            assert f"\n#{key} = " in table or f"\n# {key} = " in table
    assert max(map(len, text.splitlines())) <= 100


def test_rows_say_where_a_value_comes_from(tmp_path: Path) -> None:
    file = read(tmp_path / "x.toml", "[up]\nport = 1\nkv-memory = 7\n")
    environ = {"P2PNODE_UP_PORT": "2", "P2PNODE_HOME": "/x", "P2PNODE_UP_MDNS": ""}
    environ["P2PNODE_UP_PEER"] = "a:1 b:2"
    found = {row.key: row for row in rows(file, {("up",): KNOWN["up",]}, environ)}
    assert (found["port"].value, found["port"].source) == (2, "environment")
    assert found["port"].place == "P2PNODE_UP_PORT"
    assert (found["kv-memory"].value, found["kv-memory"].source) == (7, "file")
    assert found["kv-memory"].place.endswith("x.toml:3")
    assert (found["mdns"].value, found["mdns"].source) == (True, "default")
    assert found["state"].place == "P2PNODE_HOME"
    assert found["peer"].value == ["a:1", "b:2"]
    assert in_words(found["peer"])[2] == '["a:1", "b:2"]'


KEYS = st.sampled_from(
    ["up", "port", "peer", "mdns", "model", "x", "generate", "temperature", "a.b"]
)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(
    above=st.dictionaries(KEYS, VALUES, max_size=3),
    tables=st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3),
)
def test_whatever_a_file_says_is_read_or_told_in_lines(
    tmp_path_factory: pytest.TempPathFactory,
    above: dict[str, object],
    tables: dict[str, dict[str, object]],
) -> None:
    for key in tables:
        above.pop(key, None)
    written = [f"{as_toml(key)} = {as_toml(value)}" for key, value in above.items()]
    for name, keys in tables.items():
        written += [f"[{as_toml(name)}]"]
        written += [f"{as_toml(key)} = {as_toml(value)}" for key, value in keys.items()]
    path = tmp_path_factory.getbasetemp() / "any.toml"
    file = read(path, "\n".join(written))
    known: Known = {("up",): KNOWN["up",], ("generate",): KNOWN["generate",]}
    lines = len(written)
    for problem in file.problems_of_names(COMMANDS):
        assert 1 <= int(str(problem).removeprefix(f"{path}:").split(":")[0]) <= lines
    for row in rows(file, known, {}):
        in_words(row)
    for command, settings in known.items():
        for one in file.read_table(command, settings):
            if isinstance(one, ConfigError):
                assert 1 <= int(str(one).removeprefix(f"{path}:").split(":")[0]) <= lines


@given(text=st.text(max_size=120))
def test_any_text_is_a_file_or_one_complaint(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.toml"
    try:
        file = read(path, text)
    except UserError as error:
        told = str(error)
    else:
        told = str(path)
        list(problems(file, cli, {("up",): KNOWN["up",]}))
    assert told.startswith(str(path))


@given(st.text(st.characters(codec="utf-8")))
def test_a_text_is_written_as_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(f"a = {as_toml(text)}", "utf-8")
    assert read_toml(path).values == {"a": text}

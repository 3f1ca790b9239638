"""The strict TOML reader: what it refuses names the file and the key."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError, UserError
from p2pnode.testing.scenario import read_scenario
from p2pnode.testing.toml_table import TomlTable


def table(**values: object) -> TomlTable:
    return TomlTable("file.toml", "", values)


@pytest.mark.parametrize("value", ["7", True, 6, -1, float("nan"), None, [], {}])
def test_a_number_is_a_number_in_bounds(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^file\.toml: size "):
        table(size=value).number("size", 0, 5)


@pytest.mark.parametrize("value", [1.0, "1", False, 6])
def test_a_whole_number_is_whole_and_in_bounds(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^file\.toml: size "):
        table(size=value).integer("size", 0, 5)


@pytest.mark.parametrize("value", ["", 3, "two\nlines", ["a"]])
def test_text_is_a_line(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^file\.toml: name is a line"):
        table(name=value).text("name")


def test_lists_are_lists_of_their_kind() -> None:
    assert table(seeds=[1, 2]).integers("seeds", 0, 9) == (1, 2)
    assert table().flags("fec", (True,)) == (True,)
    for wrong in ([], 3, ["1"], [True]):
        with pytest.raises(ConfigError, match="seeds"):
            table(seeds=wrong).integers("seeds", 0, 9)
    with pytest.raises(ConfigError, match="fec"):
        table(fec=[1]).flags("fec", (True,))


def test_tables_within_are_named_by_their_path() -> None:
    top = table(link={"rate": "fast"}, node=[{"name": "a"}, {"label": "b"}])
    with pytest.raises(ConfigError, match=r"link\.rate"):
        top.table("link").number("rate", 0, 1)
    with pytest.raises(ConfigError, match=r"node\[1\]\.name is missing"):
        top.tables("node")[1].text("name")
    with pytest.raises(ConfigError, match="node is a table"):
        top.table("node")


def test_what_nobody_took_is_refused_with_what_could_be() -> None:
    top = table(seeds=[1], sedes=[2])
    top.integers("seeds", 0, 9)
    with pytest.raises(ConfigError, match="sedes is not a setting") as refusal:
        top.finish()
    assert refusal.value.hint == "one of: seeds"


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: Any, text: str) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"any\.toml"):
        read_scenario(path)  # no text this short is a whole scenario


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"title = \xff")
    for path in (tmp_path, tmp_path / "absent.toml", broken):
        with pytest.raises(ConfigError, match=str(path)):
            TomlTable.read(path)

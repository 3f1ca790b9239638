"""What doctor says of the settings file and of the variables."""

from pathlib import Path

import pytest

from p2pnode.interfaces.cli.commands import cli
from p2pnode.interfaces.config.config_file import Choice
from p2pnode.interfaces.doctor.settings import check_settings


def said(path: Path, *, is_named: bool = False) -> list[tuple[str, str]]:
    return [(one.verdict, one.what) for one in check_settings(Choice(path, is_named), cli)]


def test_no_file_is_no_problem_where_nobody_named_one(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    assert said(path) == [("ok", f"{path} is not there: the defaults hold")]
    assert said(path, is_named=True)[0][0] == "fail"


def test_each_mistake_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[up]\nprot = 1\nport = 70000\n")
    monkeypatch.setenv("P2PNODE_UP_PROT", "1")
    assert [verdict for verdict, _ in said(path)] == ["ok", "fail", "fail", "fail"]
    path.write_text("[up")
    ((verdict, what),) = said(path)
    assert verdict == "fail"
    assert what.startswith(f"{path}:1")


def test_a_file_of_another_program_does_not_fill_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("\n".join(f"key{number} = 1" for number in range(100)))
    found = said(path)
    assert len(found) == 52
    assert found[-1] == ("fail", "more than 50 problems")

"""``--version``: the program's, and those of what peers say to each other."""

import json

import click
import pytest
from click.testing import CliRunner

from p2pnode import CORES, __version__
from p2pnode.interfaces.cli.commands import cli
from p2pnode.interfaces.cli.versions import protocol_versions
from p2pnode.membership import records
from p2pnode.transport import packets
from p2pnode.wire import ad, vframe


def test_one_line_has_them_all() -> None:
    done = CliRunner().invoke(cli, ["--version"])
    assert done.exit_code == 0
    assert done.stdout == (
        f"p2pnode, version {__version__}, protocol 1 (frame {vframe.VERSION}, transport "
        f"{packets.VERSION}, membership {records.SIGNED_VERSION}, ad {ad.NEWEST}), "
        f"{CORES.in_words()}\n"
    )


@pytest.mark.parametrize("words", [["--version", "--json"], ["--json", "--version"]])
def test_as_json(words: list[str]) -> None:
    facts = json.loads(CliRunner().invoke(cli, words).stdout)
    cores = CORES.in_words()
    assert facts == {"version": __version__, **protocol_versions(), "cores": cores}


def test_json_alone_is_of_the_command_behind_it() -> None:
    error = CliRunner().invoke(cli, ["--json", "stop"], standalone_mode=False).exception
    assert isinstance(error, click.UsageError)
    assert "--json goes behind the command" in error.message


def test_what_is_signed_names_its_version() -> None:
    assert records._SIGNED_PREFIX == b"p2pnode membership 1"


def test_a_variable_of_that_name_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PNODE_VERSION", "1")
    monkeypatch.setenv("P2PNODE_JSON", "1")
    assert "Usage" in CliRunner().invoke(cli, ["stop", "--help"]).stdout

"""What forged datagrams cost is measured on an endpoint that refuses each of them."""

import json

from click.testing import CliRunner

from p2pnode.bench import forged
from p2pnode.interfaces.cli.commands import cli


def test_every_forged_datagram_is_refused_and_the_session_goes_on() -> None:
    shares: list[float] = []
    figures = forged.measure(rounds=2, datagrams=20, tell=shares.append)
    assert shares == [0.5, 1.0]
    assert {row["refused"] for row in figures["rows"]} == {20}
    assert forged.OPEN in {row["kind"] for row in figures["rows"]}
    assert all(row["us"]["p50"] > 0 for row in figures["rows"])
    assert figures["session_works"]


def test_the_command_prints_a_line_for_each_kind() -> None:
    ran = CliRunner().invoke(cli, ["bench", "forged", "--rounds", "1", "--datagrams", "7"])
    assert ran.exit_code == 0, ran.output
    lines = ran.output.splitlines()
    assert sum("7 of 7" in line for line in lines) == 4
    assert "the open session carries messages afterwards" in lines


def test_the_command_gives_facts_as_json() -> None:
    words = ["bench", "forged", "--rounds", "1", "--datagrams", "3", "--json"]
    ran = CliRunner().invoke(cli, words)
    assert {row["refused"] for row in json.loads(ran.stdout)["rows"]} == {3}

"""The comparison of HTTP servers: its rows, who is missing, and that it can find fault."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from p2pnode.bench.http import hostile, measure as measurement, speed, vanish
from p2pnode.bench.http.contestant import EVERYONE, Contestant, choose
from p2pnode.bench.http.hostile import ATTACKS
from p2pnode.bench.http.measure import measure
from p2pnode.bench.http.vanish import WAYS
from p2pnode.bench.http.wire import Reply, status_of
from p2pnode.errors import UserError
from p2pnode.installing import install_extra
from p2pnode.interfaces.cli.bench_commands import bench
from p2pnode.interfaces.cli.http_servers_table import as_table

BARE = next(one for one in EVERYONE if one.short == "bare-asyncio")


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (speed, "PACED", 3),
        (speed, "BURST", 20),
        (speed, "FIRST_BYTES", 2),
        (speed, "TINY", 3),
        (vanish, "MOST", 1.0),
        (hostile, "SLOWEST", 1.0),
        (hostile, "_PATIENCE", 0.5),
    ):
        monkeypatch.setattr(module, name, value)


def ignore(part: float) -> None:
    pass


def test_a_server_is_timed_vanished_from_and_attacked() -> None:
    told: list[float] = []
    figures = measure(choose(("uvicorn-h11", "bare-asyncio"), EVERYONE), rounds=1, tell=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    server, floor = figures["rows"]
    assert (server["name"], floor["name"]) == ("uvicorn, h11", "bare asyncio")
    for row in (server, floor):
        assert 0 < row["token_us"]["p50"] <= row["token_us"]["p99"]
        assert row["tokens"] == 3
        assert row["memory_mib"] > 1
    assert "vanishing" not in floor
    assert server["vanishing"].keys() == {way.name for way in WAYS}
    assert server["vanishing"]["closes amid the stream"]["how"] == "receive"
    assert 0 <= server["vanishing"]["closes amid the stream"]["ms"] < 1000
    assert server["attacks"]["answers"].keys() == {one.name for one in ATTACKS}
    assert server["attacks"]["answers"]["two lengths"] == 400
    assert server["survived"]
    lines = as_table(figures).splitlines()
    assert lines[0].startswith("microseconds")
    assert [line.split("  ")[0] for line in lines[1:3]] == ["uvicorn, h11", "bare asyncio"]
    assert lines[-2] == "medians of 1 round, 3 tokens"
    assert "uvicorn 0." in lines[-1]


def test_a_server_that_knows_nothing_of_its_clients_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bare sockets, called a server: deaf to what is asked, they take nonsense for a request."""
    monkeypatch.setattr(vanish, "MOST", 0.05)
    deaf = Contestant("deaf", "deaf", BARE.serve)
    row = measure([deaf], rounds=1, tell=ignore)["rows"][0]
    assert row["failed"].startswith("vanishing: JSONDecodeError")
    assert f"failed: deaf {row['failed']}" in as_table({"rows": [row], "conditions": MACHINE})


MACHINE: dict[str, Any] = {
    "rounds": 1,
    "cpu": "a",
    "cpu_mhz": None,
    "cpu_count": 1,
    "load": [0.0],
    "python": "3",
    "cores": "pure",
    "versions": {},
}


@pytest.mark.parametrize(
    ("name", "data", "is_sound"),
    [
        ("two lengths", b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
        ("two lengths", b"HTTP/1.1 200 OK\r\n\r\n", False),
        ("handler raises before", b"HTTP/1.1 200 OK\r\n\r\n", False),
        ("handler raises amid", b"HTTP/1.1 200 OK\r\n\r\n1\r\na\r\n0\r\n\r\n", False),
        ("handler raises amid", b"HTTP/1.1 200 OK\r\n\r\n1\r\na\r\n", True),
        ("two at once", b"HTTP/1.1 200 OK\r\n\r\nok", False),
        ("handler's header with a line feed", b"HTTP/1.1 200 OK\r\nX-Injected: b\r\n\r\n", False),
        ("CONNECT", b"", True),
    ],
)
def test_answers_are_judged(name: str, data: bytes, is_sound: bool) -> None:
    judge = next(one for one in ATTACKS if one.name == name).is_sound
    assert judge(Reply(data, status_of(data), is_closed=True)) is is_sound


def test_an_answer_before_the_answer_has_no_status() -> None:
    assert status_of(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n") == 204
    assert status_of(b"HTTP/1.1 100 Continue\r\n\r\n") == 0
    assert status_of(b"HTTP/1.1 junk") == 0


def test_whose_package_is_missing_is_skipped_with_what_to_install() -> None:
    absent = Contestant("pigeons", "pigeons", "no.such:thing", ("no_such_package_of_pigeons",))
    figures = measure([absent], rounds=1, tell=ignore)
    why = f"needs no_such_package_of_pigeons: {install_extra('bench')}"
    assert figures["rows"] == [{"name": "pigeons", "skipped": why}]
    assert f"skipped: pigeons {why}" in as_table(figures)


def test_who_does_not_start_is_a_row_with_its_last_word() -> None:
    broken = Contestant("broken", "broken", "p2pnode.bench.http.servers:no_such_function")
    row = measure([broken], rounds=1, tell=ignore)["rows"][0]
    assert "at its start: it did not start: AttributeError" in row["failed"]


def test_names_are_those_of_the_table_or_short_or_words() -> None:
    def chosen(*names: str) -> list[str]:
        return [one.short for one in choose(names, EVERYONE)]

    assert chosen() == [one.short for one in EVERYONE]
    assert chosen("bare", "Hypercorn, trio") == ["hypercorn-trio", "bare-asyncio", "bare-trio"]
    with pytest.raises(UserError, match="nothing called 'gunicorn'") as caught:
        chosen("gunicorn")
    assert "uvicorn-h11" in caught.value.hint


def test_the_command_prints_one_document_with_ours_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ("_vanish", "_attack", "_slowly"):
        monkeypatch.setattr(measurement, step, lambda *_args, **_options: None)
    called = CliRunner().invoke(
        bench, ["http-servers", "--rounds", "1", "--only", "p2pnode", "--json"]
    )
    figures = json.loads(called.stdout)
    assert [row["name"] for row in figures["rows"]] == ["p2pnode"]
    assert figures["rows"][0]["token_us"]["p50"] > 0
    assert figures["conditions"]["versions"].keys() >= {"uvicorn", "h11", "starlette"}

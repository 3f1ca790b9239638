"""The comparison of one Think: its rounds, its rows, and who is missing."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from p2pnode.bench.think import measure as measurement, server
from p2pnode.bench.think.contestant import (
    Codec,
    Contestant,
    F16Array,
    make_hidden,
    raw_codec,
)
from p2pnode.bench.think.measure import DISTRIBUTIONS, LEAST, measure
from p2pnode.bench.think.placement import keep_on, on_cores
from p2pnode.bench.think.roster import choose, everyone, reason_to_skip
from p2pnode.errors import UserError
from p2pnode.installing import install_extra
from p2pnode.interfaces.cli.bench_commands import bench
from p2pnode.interfaces.cli.think_table import as_table

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(measurement, "WARM_UP", 5)


def ignore(part: float) -> None:
    pass


def test_ours_and_the_floor_send_the_same_frame_to_another_process() -> None:
    told: list[float] = []
    figures = measure(choose(("p2pnode", "udp")), rounds=2, tell=told.append)
    assert told == [0.5, 1.0]
    ours, floor = figures["rows"]
    assert (ours["name"], floor["name"]) == ("p2pnode", "udp")
    assert figures["conditions"]["frame_bytes"] == ours["message_bytes"] == 4143
    assert figures["conditions"]["versions"].keys() >= {"numpy", "trio"}
    assert ours["repetitions"] == floor["repetitions"] == 2 * LEAST
    for part in ("encode_us", "decode_us", "round_trip_us"):
        assert 0 < ours[part]["p50"] <= ours[part]["p99"]
    assert floor["encode_us"] is None
    assert floor["ours_over_its"]["p50"] == pytest.approx(
        ours["round_trip_us"]["p50"] / floor["round_trip_us"]["p50"], rel=0.01
    )


def test_the_command_prints_one_document_or_a_table() -> None:
    only = ["think", "--rounds", "2", "--only", "udp", "--only", "p2pnode sealed frame"]
    figures = json.loads(CliRunner().invoke(bench, [*only, "--json"]).stdout)
    assert [row["name"] for row in figures["rows"]] == ["udp", "p2pnode sealed frame"]
    assert figures["rows"][1]["round_trip_us"] is None
    facts = figures["conditions"]
    assert facts["left_out"] == 11
    assert facts["versions"].keys() >= {"p2pnode", "numpy", "cryptography"}
    table = CliRunner().invoke(bench, only).stdout.splitlines()
    for fact in (facts["cpu"], f"Python {facts['python']}", f"numpy {facts['versions']['numpy']}"):
        assert fact in table[-1]
    assert re.search(r"\d cores?, load [\d.]+ before; ", table[-1])
    assert table[0].startswith("one Think, us")
    assert table[0].split()[-8:] == ["decode", "round", "trip", "p99", "ours", "/", "its", "p99"]
    assert len(table[1].split()) == 3  # the floor codes nothing, and has nobody to compare with
    assert (
        "4143 bytes; medians of at least 100 repetitions in 2 rounds; 11 others left out"
        in (table[-2])
    )


def test_the_ratio_stands_at_the_end_of_the_line() -> None:
    lines = as_table(measure(choose(("p2pnode", "udp")), rounds=1, tell=ignore)).splitlines()
    assert len(lines[1].split()) == 5
    *_, ratio, tail = lines[2].split()
    assert float(ratio) > 1
    assert float(tail) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a process on a core")
def test_both_sides_stay_on_the_core_they_were_given() -> None:
    usable = os.sched_getaffinity(0)
    with on_cores(1) as core:
        assert os.sched_getaffinity(0) == {core} == {min(usable)}
        with subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        ) as child:
            os.sched_setaffinity(child.pid, usable)
            keep_on(child.pid, core)
            assert os.sched_getaffinity(child.pid) == {core}
    assert os.sched_getaffinity(0) == usable
    figures = measure(choose(("udp",)), rounds=1, tell=ignore, cores=1)
    assert figures["conditions"]["kept_on_cores"] == 1
    assert "; both sides kept on one core" in as_table(figures)
    with pytest.raises(UserError, match="core only"), on_cores(len(usable) + 1):
        pass


def test_whose_package_is_missing_is_skipped_with_what_to_install() -> None:
    absent = Contestant("pigeons", raw_codec, None, ("no_such_package_of_pigeons",))
    present = Contestant("shouting", raw_codec, None)
    figures = measure([absent, present], rounds=1, tell=ignore)
    assert figures["rows"][0] == {
        "name": "pigeons",
        "skipped": f"needs no_such_package_of_pigeons: {install_extra('bench')}",
    }
    assert figures["rows"][1]["encode_us"]["p50"] > 0
    assert "skipped: pigeons needs no_such_package_of_pigeons" in as_table(figures)


@pytest.mark.parametrize("contestant", everyone(), ids=lambda one: one.name)
def test_everyone_whose_packages_are_here_gets_the_same_values_back(contestant: Contestant) -> None:
    (row,) = measure([contestant], rounds=1, tell=ignore)["rows"]
    if reason_to_skip(contestant) is not None:
        assert install_extra("bench") in row["skipped"]
    elif contestant.link is not None:
        assert row["round_trip_us"]["p50"] > 0


def test_an_extra_names_what_is_needed() -> None:
    extra = {
        requirement.split()[0]
        for requirement in PROJECT["project"]["optional-dependencies"]["bench"]
    }
    needed = {DISTRIBUTIONS.get(module, module) for one in everyone() for module in one.needs}
    core = {requirement.split()[0] for requirement in PROJECT["project"]["dependencies"]}
    servers = {"anycorn", "hypercorn[trio]"}  # which `bench http-servers` measures beside ours
    others = {"anyio", "xllamacpp"}  # what that bench imports, and what `bench engine` does
    assert extra == (needed - core) | servers | others


def test_a_codec_that_changes_values_is_caught() -> None:
    liar = Contestant("liar", lambda: Codec(as_bytes, _other), None)
    (row,) = measure([liar], rounds=1, tell=ignore)["rows"]
    assert row == {
        "name": "liar",
        "failed": "in round 1 of 1: ValueError: decoding gave other values than were encoded",
    }


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("p2pnode", ["p2pnode"]),
        ("UDP", ["udp"]),
        ("grpc", ["gRPC stream", "gRPC unary"]),
        ("grpc-unary", ["gRPC unary"]),
        ("quic", ["QUIC (aioquic)"]),
        ("msgpack", ["msgpack over TCP (uvloop)", "msgpack over TCP (asyncio)"]),
        ("http-raw", ["raw bytes over HTTP"]),
        ("zeromq", ["ZeroMQ"]),
        ("JSON over HTTP, kept alive", ["JSON over HTTP, kept alive"]),
    ],
)
def test_short_names_and_words_of_them_choose(name: str, chosen: list[str]) -> None:
    assert [one.name for one in choose((name,))] == chosen


def test_everyone_has_a_short_name_and_nobody_takes_part_twice() -> None:
    short = [one.short for one in everyone()]
    assert all(short)
    assert len(set(short)) == len(short)
    http = [one.name for one in choose(("http", "json", "http-raw"))]
    assert len(http) == len(set(http)) == 4
    assert len(choose(())) == len(everyone())


def test_a_name_that_nobody_has_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match="nothing called 'smoke signals' takes part") as caught:
        choose(("udp", "smoke signals"))
    assert "p2pnode, sealed-frame, udp" in caught.value.hint
    with pytest.raises(UserError, match="nothing called 'grcp' takes part") as caught:
        choose(("grcp",))
    assert caught.value.hint.startswith("--only grpc; ")


def test_a_server_that_does_not_start_says_its_last_words() -> None:
    with (
        pytest.raises(UserError, match=r"sealed frame did not start: .*has no server"),
        server.server_process("p2pnode sealed frame"),
    ):
        pass


@pytest.mark.parametrize("name", ["udp", "p2pnode"])
def test_a_server_ends_when_its_parent_does(name: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", server.__name__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["port"] > 0
    child.stdin.close()  # as the system does for whoever is killed
    assert child.wait(10) == 0
    child.stdout.close()


def test_the_hidden_state_is_no_row_of_zeros() -> None:
    hidden = make_hidden()
    assert (hidden.shape, hidden.dtype) == ((1, 2048), np.dtype("<f2"))
    assert np.isfinite(hidden).all()
    assert np.unique(hidden).size > 1500
    assert np.array_equal(hidden, make_hidden())


def as_bytes(hidden: F16Array) -> bytes:
    return hidden.tobytes()


def _other(data: bytes) -> F16Array:
    return make_hidden() + np.float16(1)

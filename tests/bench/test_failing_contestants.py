"""A contestant that fails or hangs, in whatever phase, is a row with its reason."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from click.testing import CliRunner

from p2pnode.bench.think import measure as measurement, over_http, quic, server
from p2pnode.bench.think.contestant import (
    IDLE_SECONDS,
    CallByCall,
    Caller,
    Contestant,
    F16Array,
    Facts,
    Link,
    raw_codec,
)
from p2pnode.bench.think.limit import OverrunError, at_most
from p2pnode.bench.think.measure import measure
from p2pnode.bench.think.roster import choose, reason_to_skip
from p2pnode.interfaces.cli.bench_commands import bench
from p2pnode.interfaces.cli.think_table import as_table

SHORT = 0.2  # seconds


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(measurement, "WARM_UP", 2)
    monkeypatch.setattr(measurement, "HANGS", SHORT)


def ignore(part: float) -> None:
    pass


def hang(*_: object) -> Any:
    threading.Event().wait()


def hang_and_swallow(*_: object) -> Any:
    with pytest.raises(OverrunError):
        hang()
    hang()


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: object) -> Any:
        raise error

    return act


def failing_at(calls: int, act: Callable[..., Any]) -> Callable[[F16Array], F16Array]:
    """Return an echo that does ``act`` at its call of this number."""
    made = 0

    def echo(hidden: F16Array) -> F16Array:
        nonlocal made
        made += 1
        return act(hidden) if made == calls else hidden

    return echo


def contestant(
    echo: Callable[[F16Array], F16Array] = lambda hidden: hidden,
    connect: Callable[[], object] = lambda: None,
    close: Callable[[], object] = lambda: None,
) -> Contestant:
    @contextmanager
    def caller(facts: Facts) -> Iterator[Caller]:
        connect()
        yield CallByCall(echo)
        close()

    return Contestant("udp", raw_codec, Link(hang, caller))


WARM, ROUND = 2, 2 + 50 + 55  # calls when warm, and after the first round
LOST = BrokenPipeError("[Errno 32] Broken pipe")


@pytest.fixture(name="_no_servers")
def _no_servers_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start none: the contestants here answer themselves."""

    @contextmanager
    def server_process(name: str, core: int | None = None) -> Iterator[Facts]:
        yield {}

    monkeypatch.setattr(measurement, "server_process", server_process)


@pytest.mark.usefixtures("_no_servers")
@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (contestant(connect=raising(ImportError("no such symbol"))), "at its start: ImportError: "),
        (contestant(connect=hang), "at its start: OverrunError: it hung: no end after 0.2 s"),
        (contestant(failing_at(WARM, raising(LOST))), "at its start: BrokenPipeError: "),
        (contestant(failing_at(WARM + 1, raising(LOST))), "in round 1 of 2: BrokenPipeError: "),
        (contestant(failing_at(ROUND + 1, raising(LOST))), "in round 2 of 2: BrokenPipeError: "),
        (contestant(failing_at(ROUND, hang)), "in round 1 of 2: OverrunError: it hung"),
        (contestant(failing_at(9, raising(TimeoutError()))), "no answer within 10 s"),
        (contestant(failing_at(9, raising(SystemExit(3)))), "in round 1 of 2: SystemExit: 3"),
        (contestant(failing_at(9, lambda hidden: -hidden)), ""),  # seen in the last one alone
        (contestant(failing_at(ROUND, lambda hidden: -hidden)), "other values came back"),
        (contestant(close=raising(OSError("gone"))), "at its end: OSError: gone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whoever_fails_is_a_row_and_the_others_stand(one: Contestant, reason: str) -> None:
    (other,) = choose(("sealed-frame",))
    before = signal.getsignal(signal.SIGALRM)
    figures = measure([one, other], rounds=2, tell=ignore)
    assert signal.getsignal(signal.SIGALRM) is before
    failed, stands = figures["rows"]
    if reason:
        assert ("repetitions" in failed) == reason.startswith("at its end")
        assert reason in failed["failed"]
        assert f"failed: udp {failed['failed']}" in as_table(figures)
    else:
        assert failed["round_trip_us"]["p50"] > 0
    assert stands["encode_us"]["p50"] > 0
    assert stands["repetitions"] == 100


@pytest.mark.usefixtures("_no_servers")
def test_a_contestant_that_swallows_its_interruption_is_interrupted_again() -> None:
    one = contestant(failing_at(WARM + 1, hang_and_swallow))
    (row,) = measure([one], rounds=1, tell=ignore)["rows"]
    assert "it hung" in row["failed"]


@pytest.mark.parametrize("make", [hang, raising(ImportError("no such symbol"))])
def test_a_codec_that_cannot_be_made_is_a_failure(make: Callable[[], Any]) -> None:
    (row,) = measure([Contestant("slow", make, None)], rounds=1, tell=ignore)["rows"]
    assert row["failed"].startswith("at its start: ")


@pytest.mark.usefixtures("_no_servers")
def test_an_interrupt_is_the_persons_and_ends_all() -> None:
    with pytest.raises(KeyboardInterrupt):
        measure([contestant(connect=raising(KeyboardInterrupt()))], rounds=1, tell=ignore)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("name", ["udp", "p2pnode"])
def test_a_server_that_dies_or_stops_is_a_failure_of_its_own(
    name: str, sign: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_ENDING", SHORT)
    monkeypatch.setattr(measurement, "HANGS", 2.0)
    monkeypatch.setattr(measurement, "PATIENCE", 1)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = popen(*words, **options)
        started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)

    def strike(part: float) -> None:
        if len(started) == 1 and part < 1:
            os.kill(started[0].pid, sign)

    figures = measure(choose((name, "sealed-frame")), rounds=2, tell=strike)
    failed, stands = figures["rows"]
    assert failed["failed"].startswith("in round 2 of 2: ")
    assert stands["repetitions"] == 100
    assert started[0].returncode is not None


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STARTING", 0.0)
    (row,) = measure(choose(("udp",)), rounds=1, tell=ignore)["rows"]
    assert row["failed"] == "at its start: the server of udp said nothing for 0 s: no word"


def test_the_command_prints_failures_and_ends_with_1_if_nobody_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "STARTING", 0.0)
    done = CliRunner().invoke(bench, ["think", "--only", "udp", "--rounds", "1", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["rows"][0]["failed"]
    both = ["think", "--only", "udp", "--only", "sealed", "--rounds", "1"]
    done = CliRunner().invoke(bench, both)
    assert done.exit_code == 0
    assert "failed: udp at its start: the server of udp said nothing" in done.stdout


def test_another_timer_goes_on_after_a_bound() -> None:
    earlier = signal.setitimer(signal.ITIMER_REAL, 100)
    handler = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with pytest.raises(OverrunError), at_most(0.01):
            hang()
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *earlier)


def test_connections_outlast_the_turns_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An HTTP server closes an idle connection after 5 s by default: less than a slow round."""
    (http,) = choose(("http-raw",))
    if reason_to_skip(http) is None:
        kept: list[float] = []
        uvicorn = import_module("uvicorn")

        class Server:
            def __init__(self, config: Any) -> None:
                kept.append(config.timeout_keep_alive)

            def run(self, sockets: object) -> None:
                pass

        monkeypatch.setattr(uvicorn, "Server", Server)
        answer = partial(over_http._bytes_answer, raw_codec)
        over_http._serve(answer, ignore)  # type: ignore[arg-type]
        assert kept == [IDLE_SECONDS]
    (other,) = choose(("quic",))
    if reason_to_skip(other) is None:
        assert quic._configuration(is_client=True).idle_timeout == IDLE_SECONDS

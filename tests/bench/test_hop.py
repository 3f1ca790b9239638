"""The moments of a hop: joined, measured on real nodes, and laid out."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from p2pnode.bench import chain
from p2pnode.bench.hop import measure, stand_in
from p2pnode.bench.hop.join import LOCAL_PARTS, PARTS, hops_of
from p2pnode.bench.hop.knobs import Compute, Knobs, Setting, Wait
from p2pnode.bench.hop.process import Idle
from p2pnode.bench.hop.rehearsal import Rehearsal
from p2pnode.bench.hop.stamps import Moment, Stamp, Stamps, mark_of, read_stamps
from p2pnode.bench.hop.stand_in import Busy, SoloStandIn, StandIn, as_engine
from p2pnode.engine.base import Engine
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.solo import answer_alone
from p2pnode.errors import UserError
from p2pnode.interfaces.cli.commands import cli
from p2pnode.interfaces.cli.hop_table import as_table
from p2pnode.testing.tiny_gguf import write_tiny_gguf

MS = 1_000_000
NUMBER = 3 << 32


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hop") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(name="engine")
def _engine(model: Path) -> Engine:
    return NumpyEngine.load(model, range(4))


# Joining


def job(at: int, position: int, layer: int) -> list[Stamp]:
    """A job of 10 ms whose engine begins after 1 ms and ends 1 ms before it is done."""
    return [
        (Moment.REQUESTED, at * MS - MS // 2, 0, 0),
        (Moment.BEGUN, at * MS, position, NUMBER | layer),
        (Moment.ENGINE, (at + 1) * MS, 0, 0),
        (Moment.ENGINE, (at + 9) * MS, 0, 0),
        (Moment.CODED, (at + 10) * MS, 0, 0),
    ]


def sent(at: int, *marks: int) -> list[Stamp]:
    """A frame, and a millisecond later its datagrams."""
    found: list[Stamp] = [(Moment.BUILT, at * MS, 0, 0)]
    for mark in marks:
        at += 1
        found += [(Moment.SEALED, at * MS, mark, 0), (Moment.SENT, at * MS + 9, 0, 0)]
    return found


def arrived(at: int, mark: int, *, by_loop: bool = False) -> list[Stamp]:
    return [
        *([] if by_loop else [(int(Moment.AWAKE), (at - 1) * MS, 0, 0)]),
        (Moment.ASKED, at * MS, 0, 0),
        (Moment.RECEIVED, (at + 1) * MS, mark, not by_loop),
        (Moment.OPENED, (at + 3) * MS, 0, 0),
    ]


def test_each_part_of_a_hop_is_told() -> None:
    """Engine's end at 9, coded 10, built 12, sealed 13, awake 15, received 17, opened 19."""
    stamps = {
        "one": [*job(0, 7, 0), *sent(12, 5)],
        "two": [*arrived(16, 5), *job(25, 7, 15)],
    }
    (hop,), unmatched = hops_of(stamps, skip=0)
    assert unmatched == 0
    assert hop.number == 3
    microseconds = {name: round(1e6 * hop.parts[name]) for name in PARTS}
    assert list(microseconds.values()) == [1000, 2000, 1000, 2000, 2000, 2000, 5500, 500, 1000]
    assert hop.seconds == pytest.approx(0.017)
    assert hop.job == pytest.approx(0.008)
    assert not hop.is_by_loop


def test_other_datagrams_around_it_change_nothing() -> None:
    stamps = {
        "one": [*job(0, 7, 0), *sent(12, 5), *arrived(18, 99), *sent(24, 6)],
        "two": [*arrived(2, 98), *sent(9, 97), *arrived(16, 5), *arrived(20, 99), *job(25, 7, 15)],
    }
    (hop,), _ = hops_of(stamps, skip=0)
    assert round(1e3 * hop.parts["peer_awake"]) == 2
    assert round(1e6 * hop.parts["job_made"]) == 5500


def test_of_a_frame_in_two_datagrams_the_last_one_opened_counts() -> None:
    stamps = {
        "one": [*job(0, 7, 0), *sent(12, 5, 6)],
        "two": [*arrived(16, 5, by_loop=True), *arrived(21, 6, by_loop=True), *job(25, 7, 15)],
    }
    (hop,), _ = hops_of(stamps, skip=0)
    assert round(1e3 * hop.parts["peer_awake"]) == 3  # the first one, and nobody slept
    assert round(1e3 * hop.parts["received"]) == 6
    assert hop.datagrams == 2
    assert hop.is_by_loop


def test_the_last_stage_hands_the_next_token_to_the_first() -> None:
    stamps = {
        "one": [*arrived(16, 5), *job(25, 8, 0)],
        "two": [*job(0, 7, 15), *sent(12, 5)],
    }
    hops, _ = hops_of(stamps, skip=0)
    assert len(hops) == 1


def test_in_one_process_nothing_travels() -> None:
    (hop,), _ = hops_of({"one": [*job(0, 7, 0), *job(12, 8, 0)]}, skip=0)
    assert tuple(hop.parts) == LOCAL_PARTS
    assert hop.seconds == pytest.approx(0.004)


def test_a_job_that_failed_is_no_end_of_a_hop() -> None:
    failed = job(0, 7, 0)[:3]
    assert hops_of({"one": [*failed, *job(12, 8, 0)]}, skip=0) == ([], 0)


def test_what_never_arrived_is_counted() -> None:
    stamps = {"one": [*job(0, 7, 0), *sent(12, 5)], "two": [*arrived(16, 4), *job(25, 7, 15)]}
    assert hops_of(stamps, skip=0) == ([], 1)


def test_the_first_tokens_do_not_count() -> None:
    stamps = {"one": [one for at in range(6) for one in job(12 * at, at, 0)]}
    assert [len(hops_of(stamps, skip=skip)[0]) for skip in (0, 4, 9)] == [5, 1, 0]


def test_stamps_are_read_as_they_were_taken(tmp_path: Path) -> None:
    stamps = Stamps()
    stamps.take(Moment.BUILT)
    assert mark_of(b"\xff" * 1200) < 1 << 63
    stamps.number = 1
    stamps.take_at(Moment.SEALED, 12, mark_of(b"\xff" * 1200), 1)
    stamps.write(tmp_path / "one.npy")
    assert read_stamps(tmp_path / "one.npy") == [(Moment.SEALED, 12, (1 << 56) - 1, 1)]


# Standing in for an engine


def test_what_one_side_sets_the_other_reads(tmp_path: Path) -> None:
    setting = Setting(7, Compute.SPIN, Wait.POLL, 0.25, 0.5)
    with Knobs(tmp_path / "one.knobs") as ours, Knobs(tmp_path / "one.knobs") as theirs:
        assert theirs.setting == Setting()
        ours.setting = setting
        theirs.found = (1.5, 2.5)
        assert theirs.setting == setting
        assert ours.found == (1.5, 2.5)


class Noted(Busy):
    """Spends no time."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[tuple[Compute, float]] = []

    def spend(self, compute: Compute, seconds: float) -> None:
        self.spent.append((compute, seconds))


def test_left_alone_it_is_the_engine_and_says_how_long_that_takes(
    engine: Engine, tmp_path: Path
) -> None:
    with Knobs(tmp_path / "knobs") as knobs:
        stood_in = answer_alone(as_engine(StandIn(engine, knobs)), [1, 2, 3], 4)
        assert stood_in.token_ids == answer_alone(engine, [1, 2, 3], 4).token_ids
        assert min(knobs.found) > 0


def test_three_stages_and_one_engine_that_waits_for_all_draw_the_same_tokens(
    engine: Engine, tmp_path: Path
) -> None:
    stages = [Setting(0, Compute.SLEEP, forward=0.25, logits=at) for at in (0.0, 0.0, 0.5)]
    with Knobs(tmp_path / "knobs") as knobs:
        knobs.setting = stages[2]
        noted = Noted()
        whole = answer_alone(as_engine(StandIn(engine, knobs, noted)), [1, 2, 3], 4)
        assert noted.spent == [(Compute.SLEEP, 0.25), (Compute.SLEEP, 0.5)] * 4
        knobs.setting = Setting(0, Compute.SLEEP)
        solo = answer_alone(as_engine(SoloStandIn(engine, [knobs.setting] * 3)), [1, 2, 3], 4)
        assert solo.token_ids == whole.token_ids
        assert len(set(solo.token_ids)) > 1
        stage = StandIn(engine, knobs)
        states = stage.forward(b"it", range(2, 4), [np.array([[0.5, -1.25]], np.float32)], 9)
        assert np.array_equal(states[0], [[0.5, -1.25]])
        assert np.array_equal(states[0], states[0].astype(np.float16))


@pytest.mark.parametrize("compute", [Compute.ARITHMETIC, Compute.SLEEP, Compute.SPIN])
def test_time_is_spent_as_was_asked(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    def clock() -> float:
        pass_by(0.001)
        return now[0]

    monkeypatch.setattr(stand_in, "WEIGHT_BYTES", 1 << 20)
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "sleep", pass_by)
    Busy().spend(compute, 0.05)
    assert now[0] == pytest.approx(0.05, abs=0.003)


# Waiting


def test_a_rehearsal_can_be_repeated_without_end() -> None:
    rehearsal = Rehearsal()
    assert sum(rehearsal.run() for _ in range(2000)) == 2000


def test_the_next_job_is_due_after_the_median_of_the_last_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    idle = Idle()
    for wait in (1.0, 2.0, 9.0):
        assert idle.due is None
        idle.began()
        now[0] += wait
        idle.ended()
    idle.is_rehearsed = True
    idle.began()
    assert idle.due == now[0] + 2
    assert not idle.is_rehearsed


# Measuring


def test_what_would_say_the_same_is_measured_once() -> None:
    found = measure.cases((1, 2, 2), ("engine", "sleep"), ("sleep", "poll"), (1.0, 15.0))
    assert [(case.processes, case.compute.name, case.wait.name, case.after) for case in found] == [
        (1, "ENGINE", "SLEEP", None),
        (1, "SLEEP", "SLEEP", 1.0),
        (1, "SLEEP", "SLEEP", 15.0),
        (2, "ENGINE", "SLEEP", None),
        (2, "ENGINE", "POLL", None),
        (2, "SLEEP", "SLEEP", 1.0),
        (2, "SLEEP", "SLEEP", 15.0),
        (2, "SLEEP", "POLL", 1.0),
        (2, "SLEEP", "POLL", 15.0),
    ]


@pytest.mark.timeout(60)
def test_real_nodes_are_measured(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real processes: whether every moment is noted, only those can tell."""
    monkeypatch.setattr(measure, "WARM_UP", 8)
    options = ("--processes", "2", "--after", "1", "--compute", "sleep", "--engine", "numpy")
    waits = ("sleep", "poll", "rehearse", "rehearse-poll")
    chosen = [word for wait in waits for word in ("--wait", wait)]
    ran = CliRunner().invoke(
        cli, ["bench", "hop", *options, *chosen, "--tokens", "3", "--model", str(model), "--json"]
    )
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout)
    assert [row["wait"] for row in figures["rows"]] == list(waits)
    assert "compiled" in figures
    for row in figures["rows"]:
        assert row["hops"] >= 4
        assert row["job_ms"] >= 1
        assert set(row["parts_us"]) == set(PARTS)
        parts = [row["parts_us"][name]["p50"] for name in PARTS]
        assert min(parts) >= 0
        assert 0 < max(parts) <= row["hop_us"]["p99"]
    shown = as_table(figures)
    assert all(row["compute"] in shown for row in figures["rows"])


@pytest.mark.timeout(60)
def test_a_chain_that_sleeps_draws_what_one_engine_does(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "WARM_UP", 20)
    told: list[float] = []
    found = chain.measure(
        model, rounds=3, tokens=6, tell=told.append, engine="numpy", compute="sleep", bare=True
    )
    assert found["compute"] == "sleep"
    assert found["identical"]
    assert 0 < found["ratio"] < 1.5
    assert 0 < found["bare_ratio"] < 1.5
    assert found["bare_hop_ms"]["p50"] > 0
    assert len(told) == len(found["bare_ratios"]) == 3


def test_too_few_layers_are_told_before_anything_starts(model: Path) -> None:
    case = measure.cases((3,), ("sleep",), ("sleep",), (1.0,))
    small = model.parent / "small.gguf"
    write_tiny_gguf(small, n_layers=2)
    with pytest.raises(UserError, match="too few for 3 processes"):
        measure.measure(small, case, tokens=1, engine="numpy", threads=1, tell=lambda _: None)


def test_a_run_without_hops_is_an_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> tuple[Sequence[object], int]:
        return [[]], 2

    monkeypatch.setattr(measure, "_measure", none)
    options = ("--processes", "1", "--after", "1", "--compute", "sleep", "--model", str(model))
    ran = CliRunner().invoke(cli, ["bench", "hop", *options], catch_exceptions=True)
    assert isinstance(ran.exception, UserError) or ran.exit_code == 1
    assert "their stamps do not match: 2" in ran.output

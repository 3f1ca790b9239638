"""Many at once: the arithmetic of what they come to, and a short run of it all."""

import json
import os
import threading
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from p2pnode.bench.serve import measure, two_models
from p2pnode.bench.serve.asking import answers, crowd
from p2pnode.bench.serve.prompts import Prompts
from p2pnode.bench.serve.shares import Together, newcomer_wait, over
from p2pnode.bench.serve.swarms import WAYS, Served
from p2pnode.bench.serve.together import SessionsAtOnce
from p2pnode.engine.random_model import random_model
from p2pnode.errors import UserError
from p2pnode.interfaces.cli import bench_serve_command
from p2pnode.interfaces.cli.bench_serve_table import as_table
from p2pnode.interfaces.cli.commands import cli
from p2pnode.node.snapshot import EngineView
from p2pnode.testing.tiny_gguf import write_tiny_gguf


def every(seconds: float, tokens: int, first: float = 0.0) -> list[float]:
    return [first + seconds * token for token in range(tokens)]


# Shares


def test_equal_sessions_have_their_fair_share() -> None:
    found = Together.of([every(0.125, 41), every(0.125, 41)])
    assert found == Together(seconds=5.0, tokens_per_s=16.0, least_share=1.0)


def test_the_slowest_session_is_held_against_an_equal_part() -> None:
    found = Together.of([every(0.125, 41), every(0.125, 41), every(0.25, 21)])
    assert found.tokens_per_s == 20
    assert found.least_share == 20 / ((40 + 40 + 20) / 3)


def test_what_one_does_before_others_begin_or_after_they_end_does_not_count() -> None:
    early = every(0.0625, 33) + every(0.25, 17, first=2.25)
    late = every(0.125, 33, first=2.0) + every(0.0625, 99, first=6.3125)
    found = Together.of([early, late])
    assert found == Together(seconds=4.25, tokens_per_s=49 / 4.25, least_share=17 * 2 / 49)


@pytest.mark.parametrize("first", [0.7, 5.0])
def test_sessions_that_hardly_overlap_are_no_figure(first: float) -> None:
    with pytest.raises(UserError, match="2 sessions hardly decoded at once") as told:
        Together.of([every(0.1, 10), every(0.1, 10, first=first)])
    assert "--tokens" in str(told.value.hint)


@given(st.lists(st.tuples(st.floats(0.01, 0.05), st.floats(0.0, 0.2)), min_size=1, max_size=8))
def test_nobody_has_more_than_all_and_the_slowest_no_more_than_its_share(
    sessions: list[tuple[float, float]],
) -> None:
    found = Together.of([every(step, 100, first) for step, first in sessions])
    assert 0 < found.least_share <= 1
    fastest = 1 / min(step for step, _ in sessions)
    assert found.tokens_per_s <= len(sessions) * (fastest + 1 / found.seconds) * 1.001


def test_ratios_are_those_of_each_round() -> None:
    assert over([2.0, 3.0, 9.0], [1.0, 2.0, 3.0]) == {"median": 2.0, "rounds": [2.0, 1.5, 3.0]}


@pytest.mark.parametrize(("worst", "is_within"), [(2.25, True), (2.5, False)])
def test_a_newcomer_may_wait_twice_as_long_and_a_chunk(worst: float, is_within: bool) -> None:
    found = newcomer_wait([1.0, 1.0, 4.0], [0.5, worst], 0.25)
    assert found == {"p99_over_alone": worst, "allowed_ms": 2250.0, "within": is_within}


# Asking


class Held:
    """A node of this process: each client has a token, then waits until it is hung up on."""

    def __init__(self, *, tokens: int = 1, ends: bool = False) -> None:
        self._tokens = tokens
        self._ends = ends
        self._closed = threading.Event()
        self.hung_up = 0
        self.stages = ()

    def client(self, timeout: float | None) -> Self:
        assert timeout is None
        return self

    def snapshot(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def call(self, method: str, params: Any, hear: Any) -> dict[str, Any]:
        assert method == "generate"
        for _ in range(self._tokens):
            hear({"event": "token"})
        if not self._ends:
            assert self._closed.wait(10)
            self.hung_up += 1
            raise UserError("the node stopped in the middle of its answer")
        return {"token_ids": params["prompt_ids"], "prompt_ids": [1], "text": "", "reused": 0}


def test_who_is_left_is_hung_up_on_before_threads_are_waited_for() -> None:
    node: Any = Held()
    with pytest.raises(KeyboardInterrupt), crowd([node], [{}, {}], [node]):
        raise KeyboardInterrupt
    assert node.hung_up == 2


def test_a_crowd_that_is_over_too_soon_is_told() -> None:
    node: Any = Held(ends=True)
    asked = {"prompt_ids": [1]}
    with pytest.raises(UserError, match="was over before"), crowd([node], [asked], [node]):
        pass


def test_questions_go_to_the_nodes_in_turn_and_answers_come_in_their_order() -> None:
    nodes: Any = [Held(tokens=3, ends=True), Held(tokens=5, ends=True)]
    found = answers(nodes, [{"prompt_ids": [number]} for number in range(3)])
    assert [one.token_ids for one in found] == [[0], [1], [2]]
    assert [len(one.came) for one in found] == [3, 5, 3]
    assert all(len(one.steps) == len(one.came) - 1 for one in found)
    assert min(one.first for one in found) >= 0


def test_an_answer_that_fails_fails_all() -> None:
    class Failing(Held):
        def call(self, method: str, params: Any, hear: Any) -> dict[str, Any]:
            raise UserError("nobody serves [0, 2)")

    nodes: Any = [Held(), Failing()]
    with pytest.raises(UserError, match="nobody serves"):
        answers(nodes, [{}, {}])


# Sessions at once


class Stage(Held):
    """A node whose sessions have their tokens in step, though each is computed by itself."""

    pid = os.getpid()
    steps = 0
    _clients = 0

    @property
    def engine(self) -> EngineView:
        return EngineView(steps=self.steps)

    def client(self, timeout: float | None) -> Self:
        self._clients += 1
        self._all = threading.Barrier(self._clients, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._clients = 0

    def call(self, method: str, params: Any, hear: Any) -> dict[str, Any]:
        for _ in range(params["max_tokens"]):
            self._all.wait(10)
            hear({"event": "token"})
        return {"token_ids": [7] * params["max_tokens"], "prompt_ids": [], "text": "", "reused": 0}

    def _count(self) -> None:
        self.steps += self._clients


def test_both_ways_are_asked_the_same_and_held_against_one_engine_alone() -> None:
    class Few(Prompts):
        def __init__(self) -> None:
            self._rng, self._ids = Random(1), list(range(100))

    stages: Any = [Stage(), Stage(), Stage()]
    swarms = [Served(way, tuple(stages), (stages[0],)) for way in WAYS]
    alone = random_model(5, n_layers=2)
    at_once = SessionsAtOnce(swarms, Few(), alone, sessions=(3, 1), tokens=40, prompt=5)
    for number in range(2):
        for turn in at_once.turns(number):
            turn()
    figures = at_once.figures()
    found = [(row["sessions"], row["batching"]) for row in figures["rows"]]
    assert found == [(1, "off"), (1, "on"), (3, "off"), (3, "on")]
    assert [row["wrong_sessions"] for row in figures["rows"]] == [2, 2, 6, 6]
    assert not figures["identical"]
    assert {row["sessions_a_step"] for row in figures["rows"]} == {3}
    assert list(figures["ratios"]) == ["3 on / 1 on", "3 on / 3 off", "1 on / 1 off"]
    assert {len(ratio["rounds"]) for ratio in figures["ratios"].values()} == {2}


# The command


def test_the_command_has_the_parts_of_the_measurement() -> None:
    assert bench_serve_command._PARTS == measure.PARTS


def bench(*options: str) -> dict[str, Any]:
    """Run a round of the command on numpy; its table is good as well."""
    small = ("--rounds", "1", "--tokens", "20", "--long-prompt", "100", "--positions", "200")
    ran = CliRunner().invoke(
        cli, ["bench", "serve", *small, *options, "--engine", "numpy", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    figures: dict[str, Any] = json.loads(ran.stdout)
    assert figures["conditions"]["cpu_count"] >= 1
    assert figures["engine"] in as_table(figures)
    return figures


def test_three_real_nodes_are_asked_by_two_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pnode.bench.serve.swarms.WARM_UP", 16)
    model = tmp_path / "tiny.gguf"
    write_tiny_gguf(model, context_length=2048)
    ways = ("--batching", "on", "--askers", "1", "--sessions", "2", "--sessions", "1")
    figures = bench(*ways, "--model", str(model))
    assert "1 node without layers" in as_table(figures)
    rows = figures["batching"]["rows"]
    assert [row["sessions"] for row in rows] == [1, 2]
    for row in rows:
        assert row["wrong_sessions"] == 0
        assert row["tokens_per_s"] > 0 < row["with_prompts_tokens_per_s"]
        assert 0 < row["least_share"] <= 1
        assert row["step_ms"]["p50"] <= row["step_ms"]["p99"]
        assert row["cpu_ms_per_token"] > 0
    assert rows[0]["sessions_a_step"] == 1
    assert figures["batching"]["identical"]
    assert figures["batching"]["ratios"]["2 on / 1 on"]["median"] > 0
    [row] = figures["newcomer"]["rows"]
    assert row["p99_over_alone"] > 0
    first, second = figures["reuse"]["positions"]
    assert 150 < first < second
    assert 100 < figures["reuse"]["reused"] < second


def test_a_node_loads_a_second_model_while_the_first_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_models, "LASTING", 30_000)  # tokens of a tiny model: for the whole load
    model, second = tmp_path / "tiny.gguf", tmp_path / "second.gguf"
    write_tiny_gguf(model, context_length=1 << 15)
    write_tiny_gguf(second, seed=2)
    figures = bench("--only", "models", "--model", str(model), "--two-models", str(second))
    assert figures["models"]["models"] == ["tiny 0", "tiny 2"]
    assert figures["models"]["identical"]
    assert figures["models"]["load_s"] > 0
    assert min(figures["models"]["together_tokens_per_s"]) > 0


def test_two_models_are_not_measured_with_one() -> None:
    ran = CliRunner().invoke(cli, ["bench", "serve", "--only", "models"])
    assert ran.exit_code == 2
    assert "--two-models" in ran.output

"""Runs with hostile members: what is asked, how it is judged, and what is told of it."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pnode.engine.sampling.options import Sampling
from p2pnode.errors import ConfigError, UserError
from p2pnode.inference.events import (
    ChainBroken,
    GenerationEvent,
    GenerationFailed,
    GenerationFinished,
)
from p2pnode.inference.request import GenerationRequest
from p2pnode.interfaces.cli.simulate_command import simulate as command
from p2pnode.testing.hostile_report import hostile_failures, hostile_table, report_hostile
from p2pnode.testing.hostile_run import (
    Asked,
    HostileOutcome,
    _ending,
    perform_hostile,
    questions,
    simulate_hostile,
)
from p2pnode.testing.links import Link
from p2pnode.testing.report import baseline_of, changes, write_baseline
from p2pnode.testing.scenario import Scenario
from p2pnode.testing.scenario_file import read_scenario
from p2pnode.testing.swarm import Swarm
from tests.testing.files import two_nodes, write

SMALL = """
title = "Small"
seeds = [1, 2]

[model]
layers = 6
kv_mib = 4

[answer]
prompt_tokens = 8
tokens = 4
limit_s = 20

[hostile]
members = 1
ways = ["hoards"]
rekeying = ["answer"]
answers = 2
further = 1
pause_s = 1.5
""" + two_nodes(6)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, SMALL)


def test_a_scenario_says_who_is_hostile(small: Path) -> None:
    hostile = read_scenario(small).hostile
    assert hostile is not None
    assert (hostile.members, hostile.ways, hostile.rekeying) == (1, ("hoards",), ("answer",))
    assert (hostile.answers, hostile.further, hostile.pause) == (2, 1, 1.5)


def test_all_ways_are_drawn_from_unless_told(tmp_path: Path) -> None:
    hostile = read_scenario(write(tmp_path, SMALL.replace('ways = ["hoards"]\n', ""))).hostile
    assert hostile is not None
    assert len(hostile.ways) == 12


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"hoards"', '"sulks"', r"hostile\.ways may hold silent, .*, not 'sulks'"),
        ('"hoards"', '"slow", "slow"', r"hostile\.ways holds one thing twice"),
        ('"answer"', '"never", "whenever"', r"hostile\.rekeying may hold answer, named, never"),
        ("members = 1", "members = 2", r"hostile\.members lies in 1\.\.1"),
        ("layers = 6", "layers = 7", "node leaves layer 6"),
        ("answers = 2", "answer = 2", r"hostile\.answer is not a setting"),
        ('name = "b"', 'name = "hostile-1"', "node may hold no name that begins with hostile"),
        ("pause_s = 1.5", "pause_s = -1", r"hostile\.pause_s lies in"),
        ("kv_mib = 4", "kv_mib = 0", r"model\.kv_mib lies in"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in SMALL
    with pytest.raises(ConfigError, match=rf"small\.toml:\d+: {complaint}"):
        read_scenario(write(tmp_path, SMALL.replace(old, new, 1)))


def test_layers_are_dealt_in_thirds(tmp_path: Path) -> None:
    four = SMALL.replace("layers = 6", "layers = 4").replace("[3, 6]", "[3, 4]")
    with pytest.raises(ConfigError, match=r"hostile\.members share out layers in thirds"):
        read_scenario(write(tmp_path, four))


def test_trouble_and_hostile_members_do_not_go_together(tmp_path: Path) -> None:
    trouble = '[[trouble]]\nkind = "kill"\nnodes = ["b"]\nafter_tokens = [2]\n'
    with pytest.raises(ConfigError, match="trouble goes wrong in one answer"):
        read_scenario(write(tmp_path, SMALL + trouble))


@pytest.mark.parametrize("cuts", [(0, 6), (0, 1, 6), (0, 5, 6), (0, 2, 3, 4, 6)])
def test_the_questions_have_one_answer_wherever_the_chain_is_cut(
    small: Path, cuts: tuple[int, ...]
) -> None:
    scenario = read_scenario(small)
    swarm = Swarm(1, Link(latency=(0.0002, 0.0008)))
    names = [f"n{first}" for first in cuts[:-1]]
    for name, first, stop in zip(names, cuts, cuts[1:], strict=False):
        swarm.add(name, range(first, stop))
    swarm.introduce(*names)
    assert swarm.network.run_until(swarm.is_ready, 10)
    for prompt, tokens in questions(scenario.model, scenario.question):
        request = GenerationRequest(prompt, len(tokens), Sampling(), frozenset(), wait=5.0)
        number = swarm.generate(names[0], request)
        assert swarm.network.run_until(lambda: swarm.ended(names[0], number), 30)  # noqa: B023
        assert swarm.tokens(names[0], number) == list(tokens)


FAILED = GenerationFailed(1, "nobody serves")
FINISHED = GenerationFinished(1, "length")


@pytest.mark.parametrize(
    ("events", "shown", "ended", "ending"),
    [
        ([FINISHED], (1, 2, 3), True, "right"),
        ([FINISHED], (1, 2), True, "wrong"),
        ([FINISHED], (1, 9, 3), True, "wrong"),
        ([FAILED], (1, 2), True, "failed"),
        ([FAILED], (9,), True, "wrong"),
        ([GenerationFailed(1, "")], (), True, "unfinished"),
        ([ChainBroken(1, 0, (), "lost")], (1,), False, "unfinished"),
        ([], (9,), False, "wrong"),
    ],
)
def test_an_answer_is_judged_by_every_token_it_showed(
    events: list[GenerationEvent], shown: tuple[int, ...], ended: bool, ending: str
) -> None:
    assert _ending(events, shown, (1, 2, 3), ended=ended) == ending


def test_the_same_seed_tells_the_same_story_in_other_processes_too(small: Path) -> None:
    scenario = read_scenario(small)
    here, there = simulate_hostile(scenario, jobs=1), simulate_hostile(scenario, jobs=2)
    assert here == there
    assert here[0].trace_hash != here[1].trace_hash


def test_the_honest_ask_in_turn_and_the_hostile_come_back(small: Path) -> None:
    scenario = read_scenario(small)
    outcome = perform_hostile(scenario, scenario.runs[0])
    assert [asked.asker for asked in outcome.answers] == ["a", "b", "a"]
    assert outcome.keys == 4
    assert outcome.ways == (("hostile-1", "hoards"),)


def fabricated(scenario: Scenario) -> HostileOutcome:
    """Right, failed and unfinished, the last with a hostile key in its plan."""
    chain = ("a [0, 3)", "b [3, 6)")
    right = Asked("a", "right", 0.1, 4, 1, "", chain, ("hostile-1 life 1",), (("b", 1),))
    failed = Asked("b", "failed", 9.0, 0, 0, "nobody serves", (), (), (("hostile-1 life 2", 2),))
    late = dataclasses.replace(right, ending="unfinished", seconds=20.0)
    ways = (("hostile-1", "hoards"),)
    return HostileOutcome(scenario.runs[0], ways, (right, failed, late), 3, 7, 1, "t", "f")


def test_a_report_sums_up_and_says_what_broke_the_promise(small: Path) -> None:
    scenario = read_scenario(small)
    found = report_hostile(scenario, [fabricated(scenario)])
    [row] = found["rows"]
    assert [row[key] for key in ("right", "failed", "wrong", "unfinished")] == [1, 1, 0, 1]
    assert (row["named"], row["named_honest"]) == ({"hoards": 2}, 2)
    assert (row["believed"], row["planned_late"]) == (1, 1)
    assert found["ways"] == {"hoards": {"runs": 1, "broke": 1, "named": 2}}
    assert found["total"]["answers"] == 3
    first, second = hostile_failures(found)
    assert "seed 1 (hoards), answer 3: neither whole nor failed after 20.0 s" in first
    assert "hostile-1 life 1 stood in a plan" in second
    headings, rows = hostile_table(found)
    assert len(rows) == 2
    assert all(len(line) == len(headings) for line in rows)


def test_a_baseline_of_it_tells_what_changed(small: Path, tmp_path: Path) -> None:
    scenario = read_scenario(small)
    outcome = fabricated(scenario)
    path = tmp_path / "baseline.json"
    write_baseline(path, report_hostile(scenario, [outcome]))
    assert "runs" not in baseline_of(report_hostile(scenario, [outcome]))["rows"][0]
    other = dataclasses.replace(outcome, trace_hash="another machine's")
    assert changes(path, report_hostile(scenario, [other])) == []
    [line, *_] = changes(path, report_hostile(scenario, [dataclasses.replace(outcome, jobs=8)]))
    assert line == "no loss, FEC on, seed 1: jobs 7 -> 8"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_fails_when_the_promise_is_broken(small: Path, tmp_path: Path) -> None:
    """A second is too little for an answer whose stage takes 2.8 a token."""
    short = write(tmp_path, SMALL.replace("limit_s = 20", "limit_s = 1").replace("hoards", "slow"))
    result = run(short, "--seed", "1", "--jobs", "1")
    assert isinstance(result.exception, UserError)
    assert "neither whole nor failed" in str(result.exception)
    assert "not as promised" in result.stdout


def test_the_command_runs_parts(small: Path) -> None:
    result = run(small, "--seed", "3-4", "--jobs", "1", "--json")
    assert json.loads(result.stdout)["seeds"] == [3, 4]
    for nonsense in ("4-3", "x", "1-", "-1", "1-99999999999"):
        assert run(small, "--seed", nonsense).exit_code == 2

"""Scenarios: what a file says, what is refused, and what running one gives."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pnode.errors import ConfigError, UserError
from p2pnode.interfaces.cli.simulate_command import simulate as command
from p2pnode.testing.experiment import Outcome, perform, simulate, unlike
from p2pnode.testing.links import WIFI, Bernoulli, GilbertElliott
from p2pnode.testing.report import baseline_of, changes, failures, report, table_of, write_baseline
from p2pnode.testing.scenario import Kill, Partition, Resting, Scenario
from p2pnode.testing.scenario_file import read_scenario
from tests.testing.files import two_nodes, write

SMALL = """
title = "Small"
seeds = [1, 2]
fec = [true, false]

[model]
layers = 4

[answer]
prompt_tokens = 8
tokens = 6
warm_up = 2

[[weather]]
name = "10 %"
loss = 0.1
""" + two_nodes(4)
SPARE = """
[[node]]
name = "spare"
layers = [2, 4]
"""
KILL = """
[[trouble]]
kind = "kill"
nodes = ["b", "spare"]
after_tokens = [3]
"""
CUT = """
[[trouble]]
kind = "partition"
side = ["a"]
other_side = ["b"]
after_tokens = [3]
seconds = 0.2
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path, SMALL)


def one_seed(path: Path) -> Scenario:
    return dataclasses.replace(read_scenario(path), seeds=(1,), fec=(True,))


def test_a_scenario_says_which_runs_there_are(small: Path) -> None:
    scenario = read_scenario(small)
    assert (scenario.name, scenario.title) == ("small", "Small")
    assert [(run.fec, run.seed) for run in scenario.runs] == [
        (True, 1),
        (True, 2),
        (False, 1),
        (False, 2),
    ]
    assert scenario.undisturbed.weather.loss == Bernoulli(0.0)
    assert scenario.link.latency == (0.0002, 0.0008)


def test_weather_comes_in_three_ways(tmp_path: Path) -> None:
    more = '[[weather]]\nname = "chain"\nbursts = { p = 0.1, r = 0.5 }\n'
    more += '[[weather]]\nname = "home"\npreset = "wifi"\n'
    scenario = read_scenario(write(tmp_path, SMALL + more))
    losses = [weather.loss for weather in scenario.weathers]
    assert losses == [Bernoulli(0.1), GilbertElliott(0.1, 0.5), WIFI]


def test_trouble_strikes_after_each_token_unless_told(tmp_path: Path) -> None:
    each = KILL.replace("after_tokens = [3]\n", "")
    scenario = read_scenario(write(tmp_path, SMALL + SPARE + each + CUT))
    kill, cut = scenario.troubles
    assert isinstance(kill, Kill)
    assert kill.after == (1, 2, 3, 4, 5)
    assert isinstance(cut, Partition)
    assert len(scenario.runs) == (5 + 1) * 2 * 2


def test_an_owner_comes_back_for_a_while(tmp_path: Path) -> None:
    rest = KILL.replace('"kill"', '"rest"') + "seconds = 2.5\n"
    (resting,) = read_scenario(write(tmp_path, SMALL + SPARE + rest)).troubles
    assert isinstance(resting, Resting)
    assert (resting.seconds, resting.after) == (2.5, (3,))
    with pytest.raises(ConfigError, match=r"trouble\[0\]\.seconds"):
        read_scenario(write(tmp_path, SMALL + SPARE + KILL.replace('"kill"', '"rest"')))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("seeds", "sedes", "seeds is missing"),
        ("fec", "fex", "fex is not a setting"),
        ("[1, 2]", "[1, 1]", "seeds holds one thing twice"),
        ("loss = 0.1", "loss = 1.5", r"weather\[0\]\.loss lies in"),
        ("loss = 0.1", "", r"weather\[0\]\.loss or bursts or preset"),
        ("loss = 0.1", 'preset = "wlan"', r"weather\[0\]\.preset is one of wifi"),
        ("[0.2, 0.8]", "[0.8, 0.2]", r"link\.latency_ms is \[shortest"),
        ("[0.2, 0.8]", "[-1, 0.2]", r"link\.latency_ms lies in"),
        ("layers = 4", "layers = 5", "node leaves layer 4 to nobody"),
        ("layers = 4", "layers = 4\nheads = 5", r"model\.heads"),
        ("layers = 4", "layers = 4\nheads = 4\nkv_heads = 3", r"model\.kv_heads"),
        ("layers = [2, 4]", "layers = [2, 2]", r"node\[1\]\.layers is \[first"),
        ('name = "b"', 'name = "a"', "node is a list"),
        ("warm_up = 2", "warm_up = 6", r"answer\.warm_up lies in 1..5"),
        ("prompt_tokens", "prompt", r"answer\.prompt is not a setting"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in SMALL
    with pytest.raises(ConfigError, match=rf"small\.toml:\d+: {complaint}"):
        read_scenario(write(tmp_path, SMALL.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        (KILL, "nodes may hold b, not 'spare'"),
        (KILL.replace('"b", "spare"', '"a"'), "nodes may hold b, not 'a'"),
        (CUT.replace('["b"]', '["a"]'), "other_side shares no node"),
        (CUT.replace("[3]", "[6]"), "after_tokens lies in 1..5"),
        (CUT.replace('"partition"', '"flood"'), "kind is kill, rest or partition"),
        (CUT.replace("seconds = 0.2", ""), "seconds is missing"),
    ],
)
def test_trouble_that_cannot_be_is_refused(tmp_path: Path, trouble: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"small\.toml:\d+: trouble\[0\]\.{complaint}"):
        read_scenario(write(tmp_path, SMALL + trouble))


def test_the_same_seed_gives_the_same_hashes_in_other_processes_too(small: Path) -> None:
    scenario = one_seed(small)
    here, there = simulate(scenario, jobs=1), simulate(scenario, jobs=2)
    assert here == there
    assert not unlike(here[1], there[1])
    assert not failures(report(scenario, *here))


def test_a_killed_stage_is_noticed_and_replaced(tmp_path: Path) -> None:
    scenario = one_seed(write(tmp_path, SMALL.replace("0.1", "0.0") + SPARE + KILL))
    undisturbed, [outcome] = simulate(scenario, jobs=1)
    assert outcome.tokens == undisturbed.tokens
    assert outcome.repairs == 1
    assert outcome.noticed is not None
    assert outcome.paused is not None
    assert 0 < outcome.noticed < outcome.paused < 3


def test_an_answer_waits_out_a_short_partition(tmp_path: Path) -> None:
    scenario = one_seed(write(tmp_path, SMALL.replace("0.1", "0.0") + CUT))
    undisturbed, [outcome] = simulate(scenario, jobs=1)
    assert outcome.tokens == undisturbed.tokens
    assert outcome.paused is not None
    assert outcome.paused >= 0.2


def test_an_answer_nobody_can_give_is_a_failure(tmp_path: Path) -> None:
    alone = SMALL.replace("tokens = 6", "tokens = 6\nlimit_s = 100") + KILL.replace(', "spare"', "")
    scenario = one_seed(write(tmp_path, alone))
    undisturbed, outcomes = simulate(scenario, jobs=1)
    [line] = failures(report(scenario, undisturbed, outcomes))
    assert "after token 3" in line
    assert "[2, 4)" in line


def ran(small: Path) -> tuple[Scenario, Outcome, list[Outcome]]:
    scenario = one_seed(small)
    undisturbed = perform(scenario, scenario.undisturbed)
    return scenario, undisturbed, [perform(scenario, run) for run in scenario.runs]


def test_other_tokens_are_a_failure(small: Path) -> None:
    scenario, undisturbed, [outcome] = ran(small)
    wrong = dataclasses.replace(outcome, tokens=outcome.tokens[:-1])
    found = report(scenario, undisturbed, [wrong])
    assert failures(found) == ["10 %, FEC on, seed 1: other tokens"]
    assert table_of(found)[1][0][-1] == "0 of 1"


def test_a_baseline_tells_what_changed(small: Path, tmp_path: Path) -> None:
    scenario, undisturbed, [outcome] = ran(small)
    path = tmp_path / "baseline.json"
    found = report(scenario, undisturbed, [outcome])
    write_baseline(path, found)
    assert changes(path, found) == []
    other_bits = dataclasses.replace(outcome, trace_hash="another machine's")
    assert changes(path, report(scenario, undisturbed, [other_bits])) == []
    other_traffic = dataclasses.replace(outcome, retransmits=outcome.retransmits + 7)
    [line] = changes(path, report(scenario, undisturbed, [other_traffic]))
    assert line.startswith("10 %, FEC on: retransmits ")


def test_a_baseline_of_something_else_is_refused(small: Path, tmp_path: Path) -> None:
    scenario, undisturbed, outcomes = ran(small)
    found = report(scenario, undisturbed, outcomes)
    path = tmp_path / "baseline.json"
    for content in ("", "[]", "{}", json.dumps({**baseline_of(found), "rows": [1]})):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"baseline\.json"):
            changes(path, found)
    path.write_text(json.dumps({**baseline_of(found), "seeds": [9]}))
    with pytest.raises(ConfigError, match="seeds is"):
        changes(path, found)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_checks_and_prints_a_table(small: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    arguments = (small, "--seed", "1", "--jobs", "1", "--baseline", baseline)
    result = run(*arguments, "--check", "--write-baseline")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split()[:4] == ["weather", "FEC", "runs", "tokens/s"]
    assert "same trace twice: 2 runs" in result.stderr
    again = run(*arguments)
    assert "0 changes since the baseline" in again.stdout


def test_the_command_speaks_json(small: Path) -> None:
    result = run(small, "--seed", "3", "--jobs", "1", "--json")
    found = json.loads(result.stdout)
    assert found["seeds"] == [3]
    assert [row["identical"] for row in found["rows"]] == [1, 1]
    assert len(found["tokens"]) == 6


def test_the_command_refuses_in_words(small: Path, tmp_path: Path) -> None:
    for arguments in ((tmp_path / "absent.toml",), (small, "--write-baseline")):
        assert isinstance(run(*arguments).exception, UserError)

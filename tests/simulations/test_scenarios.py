"""The scenarios that ship: they can be read, have a baseline, and keep their promise."""

import dataclasses
import json
from pathlib import Path

import pytest

from p2pnode.testing.experiment import simulate
from p2pnode.testing.hostile import WAYS
from p2pnode.testing.hostile_report import hostile_failures, report_hostile
from p2pnode.testing.hostile_run import simulate_hostile
from p2pnode.testing.report import failures, report
from p2pnode.testing.scenario import Scenario
from p2pnode.testing.scenario_file import read_scenario

FOLDER = Path(__file__).parents[2] / "simulations"
PATHS = sorted((FOLDER / "scenarios").glob("*.toml"))
HOSTILE = FOLDER / "scenarios" / "hostile-members.toml"


@pytest.fixture(params=[path for path in PATHS if path != HOSTILE], ids=lambda path: path.stem)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return read_scenario(request.param)


def test_there_are_some() -> None:
    assert [path.stem for path in PATHS] == [
        "home-wifi",
        "hostile-members",
        "loss-sweep",
        "owner-returns",
        "partition",
        "peer-death",
    ]


def test_the_hostile_scenario_is_what_it_says() -> None:
    """Three of twelve, fifty seeds, every way, and ten answers before none may be in a plan."""
    scenario = read_scenario(HOSTILE)
    hostile = scenario.hostile
    assert hostile is not None
    assert (len(scenario.members), hostile.members) == (9, 3)
    assert len(scenario.seeds) >= 50
    assert hostile.ways == tuple(WAYS)
    assert (hostile.answers, scenario.question.seconds) == (10, 60.0)
    for layer in range(scenario.model.layers):
        assert sum(layer in member.layers for member in scenario.members) == 3


def test_the_hostile_scenario_has_a_baseline_in_which_every_answer_ended() -> None:
    baseline = json.loads((FOLDER / "baselines" / "hostile-members.json").read_text("utf-8"))
    assert baseline["seeds"] == list(read_scenario(HOSTILE).seeds)
    assert [row["seed"] for row in baseline["rows"]] == baseline["seeds"]
    for row in baseline["rows"]:
        assert row["right"] + row["failed"] == row["answers"] == 12
        assert row["planned_late"] == row["wrong"] == 0


def test_each_has_a_baseline_of_the_same_runs(scenario: Scenario) -> None:
    baseline = json.loads((FOLDER / "baselines" / f"{scenario.name}.json").read_text("utf-8"))
    assert baseline["seeds"] == list(scenario.seeds)
    rows = [(row["weather"], row["fec"], row["trouble"]) for row in baseline["rows"]]
    names = [trouble.name for trouble in scenario.troubles] or [""]
    assert rows == [
        (weather.name, fec, name)
        for weather in scenario.weathers
        for fec in scenario.fec
        for name in names
    ]
    assert all(row["identical"] == row["answers"] == row["finished"] for row in baseline["rows"])


def test_each_keeps_its_promise_in_small(scenario: Scenario) -> None:
    """One seed, a short answer and trouble in its middle only; ``p2pnode simulate`` runs it all."""
    question = dataclasses.replace(scenario.question, tokens=12, warm_up=4)
    troubles = tuple(dataclasses.replace(trouble, after=(6,)) for trouble in scenario.troubles)
    small = dataclasses.replace(
        scenario, seeds=scenario.seeds[:1], question=question, troubles=troubles
    )
    assert failures(report(small, *simulate(small, jobs=1))) == []


def test_the_hostile_break_no_promise_in_small() -> None:
    """Three seeds, which show nine of the twelve ways; every node asks before what counts.

    The seed that invents members by the hundred takes a minute; ``p2pnode simulate`` runs it too.
    """
    scenario = read_scenario(HOSTILE)
    hostile = scenario.hostile
    assert hostile is not None
    small = dataclasses.replace(
        scenario,
        seeds=(1, 3, 4),
        question=dataclasses.replace(scenario.question, tokens=8),
        hostile=dataclasses.replace(hostile, answers=9, further=2, pause=1.5),
    )
    found = report_hostile(small, simulate_hostile(small))
    assert len(found["ways"]) == 9
    assert set(found["ways"]) < set(WAYS)
    assert hostile_failures(found) == []


def test_parity_keeps_answers_quick_at_ten_percent_loss() -> None:
    """The planted fault of this simulation is FEC off: it must be seen to be worse."""
    sweep = read_scenario(FOLDER / "scenarios" / "loss-sweep.toml")
    weathers = tuple(weather for weather in sweep.weathers if weather.name in ("0 %", "10 %"))
    question = dataclasses.replace(sweep.question, tokens=70)
    small = dataclasses.replace(sweep, seeds=(1,), weathers=weathers, question=question)
    rows = report(small, *simulate(small, jobs=1))["rows"]
    p90 = {(row["weather"], row["fec"]): row["latency_p90_ms"] for row in rows}
    assert p90["10 %", True] < 1.25 * p90["0 %", True]
    assert p90["10 %", False] > 1.25 * p90["0 %", True]


def test_the_guide_s_own_scenario_can_be_read(tmp_path: Path) -> None:
    guide = (FOLDER.parent / "docs" / "guides" / "simulate.md").read_text("utf-8")
    path = tmp_path / "own.toml"
    path.write_text(guide.split("```toml\n")[1].split("```")[0], "utf-8")
    assert [weather.name for weather in read_scenario(path).weathers] == ["hotspot"]

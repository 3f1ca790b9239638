"""What a demonstration says at its end: who served, before a death and after it."""

from typing import Any

import pytest

from p2pnode.interfaces.cli.demo_command import _served, _summarise


def stage(name: str, first: int, stop: int) -> dict[str, Any]:
    return {"peer": name, "name": name, "layers": [first, stop]}


ATTIC, KITCHEN, STUDY = stage("attic", 0, 10), stage("kitchen", 10, 20), stage("study", 20, 30)
GARAGE = stage("garage", 10, 20)
BEFORE, AFTER = [ATTIC, KITCHEN, STUDY], [ATTIC, GARAGE, STUDY]


def summary(
    capsys: pytest.CaptureFixture[str],
    chains: list[tuple[int, list[dict[str, Any]]]],
    *,
    tokens: int = 96,
    kill: bool = True,
    **facts: Any,
) -> list[str]:
    usual = {
        "tokens": tokens,
        "plan": {"stages": BEFORE},
        "served": _served(chains, tokens),
        "tokens_per_s": 20.0,
        "solo_tokens_per_s": 22.0,
        "hop_ms": {"p50": 0.7, "p99": 1.5},
        "killed": "kitchen" if kill else None,
        "killed_after": 12 if kill else 0,
        "resumed_ms": 900.0 if kill else None,
        "identical": True,
        "activations": {"codings": ["f32"]},
    }
    _summarise({**usual, **facts}, kill=kill)
    return capsys.readouterr().out.splitlines()


def test_without_a_death_everyone_served_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary(capsys, [(0, BEFORE)], kill=False) == [
        "     attic  layers [0, 10)",
        "   kitchen  layers [10, 20)",
        "     study  layers [20, 30)",
        "96 tokens at 20.0 tokens/s over 3 peers, 22.0 alone; a hop costs 0.70 ms (p99 1.50)",
        "one engine alone says the very same tokens",
    ]


def test_the_dead_stage_is_credited_with_what_it_did_and_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = summary(capsys, [(0, BEFORE), (12, AFTER)])
    assert lines[:4] == [
        "     attic  layers [0, 10)",
        "   kitchen  layers [10, 20), tokens 1 to 12",
        "    garage  layers [10, 20), tokens 13 to 96",
        "     study  layers [20, 30)",
    ]
    assert lines[5] == (
        "kitchen was killed after 12 tokens; the next one came 900 ms later, "
        "from garage in its place"
    )


def test_a_chain_that_gave_no_token_is_not_credited(capsys: pytest.CaptureFixture[str]) -> None:
    other = [ATTIC, stage("cellar", 10, 20), STUDY]
    lines = summary(capsys, [(0, BEFORE), (13, other), (13, AFTER)])
    assert not [line for line in lines if "cellar" in line]
    assert "    garage  layers [10, 20), tokens 14 to 96" in lines


def test_an_answer_that_ends_early_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = summary(capsys, [(0, BEFORE)], tokens=5, killed=None, resumed_ms=None)
    assert lines[4] == "the answer had ended before anybody was to be killed"
    lines = summary(capsys, [(0, BEFORE)], tokens=12, resumed_ms=None)
    assert lines[4] == "kitchen was killed after 12 tokens; the answer had ended"
    lines = summary(capsys, [(0, BEFORE)], tokens=1, hop_ms={"p50": None, "p99": None})
    assert "hop" not in lines[3]


@pytest.mark.parametrize("coding", ["f16", "q4"])
def test_what_rounds_may_say_other_tokens(capsys: pytest.CaptureFixture[str], coding: str) -> None:
    lines = summary(capsys, [(0, BEFORE)], kill=False, activations={"codings": [coding]})
    assert lines[-1].endswith(f"(sent between peers as {coding}, so it may)")

"""The options of sampling: one meaning in ``generate`` and ``chat``, and ranges that are held."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from p2pnode.engine.sampling.options import Sampling
from p2pnode.interfaces.cli.ask_commands import chat, generate
from p2pnode.interfaces.cli.sampling_options import sampling_options, sampling_params
from p2pnode.node.sampling_params import sampling_of


def chosen(*words: str) -> dict[str, Any]:
    taken: dict[str, Any] = {}

    @click.command()
    @sampling_options
    def command(**options: Any) -> None:
        taken.update(sampling_params(options))

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    return taken


def test_what_is_chosen_reaches_the_sampler() -> None:
    assert sampling_of(chosen()) == Sampling()
    words = "--temperature 0.5 --top-k 40 --top-p 0.9 --min-p 0.1 --seed 3 --repetition-penalty 1.1"
    more = "--presence-penalty 1 --frequency-penalty -1 --penalty-last-n 32 --logprobs 4"
    expected = Sampling(0.5, 40, 0.9, 3, 0.1, 1.1, 1, -1, 32, 4)
    assert sampling_of(chosen(*words.split(), *more.split())) == expected


@pytest.mark.parametrize("command", [generate, chat])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--min-p", "1.5"),
        ("--min-p", "-1"),
        ("--repetition-penalty", "0"),
        ("--repetition-penalty", "nan"),
        ("--temperature", "nan"),
        ("--top-p", "nan"),
        ("--presence-penalty", "2.5"),
        ("--frequency-penalty", "-3"),
        ("--penalty-last-n", "0"),
        ("--penalty-last-n", "9000"),
        ("--logprobs", "-1"),
        ("--logprobs", "21"),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_starts(
    command: click.Command, option: str, value: str
) -> None:
    words = [f"{option}={value}"] + (["hello"] if command is generate else [])
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert option in result.output

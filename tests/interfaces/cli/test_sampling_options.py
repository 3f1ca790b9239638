"""The options of sampling: one meaning in ``generate`` and ``chat``, and ranges that are held."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.schema_text import MOST_SCHEMA
from p2pnode.interfaces.cli.ask_commands import chat, generate
from p2pnode.interfaces.cli.sampling_options import sampling_options, sampling_params
from p2pnode.node.answering.sampling_params import sampling_of


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


def test_a_schema_is_written_out_or_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('\ufeff{ "type":\n "object" }', "utf-8")
    for given in (str(file), '{"type": "object"}', ' {"type":"object"}'):
        assert sampling_of(chosen("--schema", given)) == Sampling(schema='{"type":"object"}')
    assert sampling_of(chosen("--json-mode")) == Sampling(schema='{"type":"object"}')


@pytest.mark.parametrize("command", [generate, chat])
@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ("/no/such/file", "No such file"),
        (".", "directory"),
        ("", "empty path"),
        ("[1]", "not an object"),
        ('{"a":', "not JSON"),
        ('{"a": NaN}', "not JSON"),
        ('{"a": "' + "x" * MOST_SCHEMA + '"}', "bytes"),
        ('{"a":' * 70 + "1" + "}" * 70, "deeper"),
        ('{"multipleOf": 999983}', "multipleOf"),
        ('{"type": "obj"}', "cannot be followed"),
    ],
    ids=lambda text: text[:20],
)
def test_a_schema_that_cannot_be_is_refused_in_one_line(
    command: click.Command, schema: str, word: str
) -> None:
    words = ["--schema", schema] + (["hello"] if command is generate else [])
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 2
    assert word in result.output


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


@pytest.mark.parametrize("command", [generate, chat])
@pytest.mark.parametrize("json_mode_first", [True, False])
def test_a_schema_and_json_mode_exclude_each_other(
    command: click.Command, json_mode_first: bool
) -> None:
    schema = ["--schema", '{"type":"array"}']
    words = ["--json-mode", *schema] if json_mode_first else [*schema, "--json-mode"]
    result = CliRunner().invoke(command, words + (["hello"] if command is generate else []))
    assert result.exit_code == 2
    assert "--schema and --json-mode do not go together" in result.output
    assert "not with --schema" in " ".join(CliRunner().invoke(command, ["--help"]).output.split())

"""What coarser hidden states cost is said once, in the words that were measured."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from p2pnode.interfaces.cli.commands import cli
from p2pnode.interfaces.cli.node_options import ACTIVATION_COSTS

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guides" / "swarm.md").read_text("utf-8")
FIGURES = (DOCS / "figures.md").read_text("utf-8")


def measured(coding: str) -> tuple[float, float]:
    """Return a calibrated coding's part of f16's bytes, and of tokens that are others."""
    row = next(line for line in FIGURES.splitlines() if line.startswith(f"| **{coding}** | "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    return 1 / float(cells[2].removeprefix("1 / ")), 1 - float(cells[4].removesuffix(" %")) / 100


@pytest.mark.parametrize("command", ["up", "join", "generate", "chat", "demo"])
def test_help_and_guide_use_the_same_words(command: str) -> None:
    shown = CliRunner().invoke(cli, [command, "--help"]).output
    words = " ".join(shown.split())
    for name, cost in ACTIVATION_COSTS.items():
        assert f"{name}: {cost}." in words
        assert re.search(rf"^\| `{name}`[^|]*\| {re.escape(cost)} \|$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize(("coding", "bytes_below"), [("i8", 0.5), ("q4", 0.26)])
def test_the_words_are_what_was_measured(coding: str, bytes_below: float) -> None:
    part_of_bytes, others = measured(coding)
    assert part_of_bytes < bytes_below
    said = re.search(r"one token in (\d+) is another", ACTIVATION_COSTS[coding])
    assert said is not None
    assert int(said[1]) == pytest.approx(1 / others, rel=0.1)

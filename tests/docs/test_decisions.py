"""The pages about the house keep to its facts: packages, rooms, and the form of a decision."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs/decisions").glob("0*.md"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def first_cells(page: str, after: str) -> list[str]:
    """Return the first column of the table that follows a line."""
    text = (ROOT / "docs" / page).read_text("utf-8").split(after, 1)[1].lstrip()
    rows = text.split("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


def package(requirement: str) -> str:
    return re.split(r"[ <>=~!\[]", requirement)[0].lower()


def test_every_dependency_has_its_reason_and_no_reason_is_left_over() -> None:
    reasons = first_cells("decisions/0001-dependencies.md", "one thing that we would do worse.\n")
    assert sorted(reasons) == sorted(map(package, PROJECT["project"]["dependencies"]))


@pytest.mark.parametrize("extra", ["dev", "bench", "engines", "torch", "jax"])
def test_the_tools_are_listed(extra: str) -> None:
    text = (ROOT / "docs/decisions/0001-dependencies.md").read_text("utf-8")
    for requirement in PROJECT["project"]["optional-dependencies"][extra]:
        assert package(requirement) in text


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_says_what_was_known_decided_and_follows(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith(f"# {page.name[:4]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert f"({page.name})" in (page.parent / "README.md").read_text("utf-8")


def test_the_rooms_are_those_of_the_contract() -> None:
    layers, purity = PROJECT["tool"]["importlinter"]["contracts"]
    rooms = first_cells("architecture.md", "<!-- table: rooms -->\n")
    listed = [room for layer in layers["layers"] for room in re.split(r" \| ", layer)]
    assert rooms == listed
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    pure = {room for room in rooms if f"| {room} | pure |" in text}
    assert pure == {
        module.split(".")[1] for module in purity["source_modules"] if module.count(".") == 1
    }

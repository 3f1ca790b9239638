"""What is known of each family is said, and the page that says it is right."""

from pathlib import Path

import pytest

from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "vocabularies.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
][1:]
WANTED = (
    *("llama-bpe", "llama3", "llama-v3", "qwen2", "tekken", "gpt-4o", "smollm", "smaug-bpe"),
    *("dbrx", "deepseek-r1-qwen", "gpt-2", "default"),
)


def test_the_families_that_people_use_are_known() -> None:
    assert set(WANTED) <= set(PRE_TOKENIZERS)
    for name in ("llama-bpe", "qwen2", "tekken", "gpt-4o", "smollm"):
        assert PRE_TOKENIZERS[name].checked_against
    assert not PRE_TOKENIZERS["default"].checked_against


def test_the_page_names_every_family_and_what_it_was_checked_against() -> None:
    said = {
        name.strip(" `"): checked.strip("` ")
        for names, _, checked in ROWS
        for name in names.split(",")
    }
    assert said == {name: one.checked_against for name, one in PRE_TOKENIZERS.items()}


@pytest.mark.parametrize(
    "text", ["a" * 200_000, " " * 200_000 + "x", "aA" * 100_000, "\u0301" * 99_999]
)
@pytest.mark.parametrize("name", ["llama-bpe", "tekken", "gpt-4o", "deepseek-v3", "default"])
def test_long_runs_are_cut_in_time(name: str, text: str) -> None:
    pieces = PRE_TOKENIZERS[name].cutter().pre_tokenize_str(text)
    assert pieces[-1][1][1] == len(text)

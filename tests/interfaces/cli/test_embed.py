"""``p2pnode embed``: a line a text, from arguments or standard input."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from p2pnode.errors import UserError
from p2pnode.interfaces.cli.embed_command import embed
from p2pnode.node.embedder import Embedder
from tests.node.small_embedder import small_embedder


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small embedder stands in for the one of the cache, which counts as pulled."""
    made = small_embedder(tmp_path)
    monkeypatch.setattr(Embedder, "open", lambda known: made)
    monkeypatch.setattr("p2pnode.node.model_cache.is_missing", lambda name: False)


def run(*words: str, said: str | bytes | None = None) -> Result:
    done = CliRunner().invoke(embed, words, input=said)
    if isinstance(done.exception, UserError):
        raise done.exception
    return done


def facts(*words: str, said: str | None = None) -> Any:
    return json.loads(run(*words, "--json", said=said).stdout)


def test_a_line_a_text() -> None:
    done = run("the cat", "the " * 30)
    lines = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert [len(line) for line in lines] == [12, 12]
    assert lines == facts("the cat", "the " * 30)["embeddings"]
    assert "2 texts, 12 tokens, 12 numbers each, by minilm" in done.stderr
    assert "of 1 text only the first 8 tokens were read" in done.stderr


def test_lines_of_standard_input_are_texts() -> None:
    told = facts("-", said="the cat\n\nthe\n")
    assert told["tokens_each"] == [4, 2, 3]
    assert told["embeddings"] == facts("the cat", "", "the")["embeddings"]


def test_more_texts_than_fit_one_request_are_no_trouble() -> None:
    assert facts("-", said="the\n" * 600)["tokens"] == 1800


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no text"):
        run("-", said="")
    with pytest.raises(UserError, match="not in UTF-8"):
        run("-", said=b"\xff\xfe\x00")
    with pytest.raises(UserError, match="no file called 'nobody'"):
        run("hi", "--model", "nobody", "--state", str(tmp_path / "state"))

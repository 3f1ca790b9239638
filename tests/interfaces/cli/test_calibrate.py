"""``p2pnode models calibrate``: what cannot work is refused before a model is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pnode.engine import registry
from p2pnode.errors import UserError
from p2pnode.interfaces.cli.model_commands import TEXT_PER_TOKEN, models
from p2pnode.node import models as store
from p2pnode.testing.tiny_gguf import write_tiny_gguf


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("P2PNODE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture
def refused(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., UserError]:
    """Calibrate where loading a model would be noticed; return the error that a person sees."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(registry, "load_engine", never)

    def run(*arguments: str | Path) -> UserError:
        result = calibrate(gguf, *arguments)
        assert isinstance(result.exception, UserError), result.exception
        assert result.exception.hint
        return result.exception

    return run


def calibrate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(models, ["calibrate", *map(str, arguments)])


def test_a_text_is_measured_and_kept(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("one two three " * 50, "utf-8")
    result = calibrate(gguf, "--text", tmp_path / "text", "--output", tmp_path / "new" / "it.pcal")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / "it.pcal").read_bytes()[:4] == b"PCAL"


def test_a_text_too_short_is_refused(refused: Callable[..., UserError], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x", "utf-8")
    assert "too short" in str(refused("--text", tmp_path / "text"))


def test_what_is_no_text_is_refused(refused: Callable[..., UserError], tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in str(refused("--text", tmp_path / "text"))


def test_a_place_that_cannot_be_written_is_refused(
    refused: Callable[..., UserError], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    assert "cannot write" in str(refused("--output", tmp_path / "file" / "it.pcal"))


def test_no_more_of_a_text_is_read_than_the_context_holds(gguf: Path, tmp_path: Path) -> None:
    context = store.describe_model(gguf).context_length
    whole = ("one two three " * (context * TEXT_PER_TOKEN))[: context * TEXT_PER_TOKEN]
    (tmp_path / "text").write_bytes(whole.encode() + b"\n" * 100_000 + b"\xff")
    result = calibrate(gguf, "--text", tmp_path / "text", "--output", tmp_path / "it.pcal")
    assert result.exit_code == 0, result.output

"""Standard input beside a prompt: read where it is meant, and never waited for."""

import io
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pnode.errors import UserError
from p2pnode.interfaces.cli import piped_input
from p2pnode.interfaces.cli.piped_input import MOST_BYTES, text_beside_prompt

Give = Callable[[int], None]


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Make a descriptor standard input."""
    monkeypatch.setattr(piped_input, "PATIENCE", 0.01)

    def given(descriptor: int) -> None:
        monkeypatch.setattr("sys.stdin", open(descriptor, encoding="utf-8"))  # noqa: SIM115

    return given


def pipe(data: bytes, *, closed: bool) -> tuple[int, list[int]]:
    reading, writing = os.pipe()
    os.write(writing, data)
    if closed:
        os.close(writing)
    return reading, [] if closed else [writing]


def test_a_pipe_that_has_something_or_ends_is_read(give: Give) -> None:
    for data, text in ((b"notes\n\n", "notes"), (b"", ""), (b"\xef\xbb\xbfx", "x")):
        give(pipe(data, closed=True)[0])
        assert text_beside_prompt(None) == text
        sys.stdin.close()


def test_a_pipe_or_socket_that_nobody_writes_to_is_left_and_that_is_said(
    give: Give, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = pipe(b"", closed=False)
    ours, theirs = socket.socketpair()
    for descriptor in (reading, ours.detach()):
        give(descriptor)
        assert text_beside_prompt(None) == ""
        assert "nothing came" in capsys.readouterr().err
        assert text_beside_prompt(False) == ""
        assert capsys.readouterr().err == ""
        sys.stdin.close()
    os.close(writing[0])
    theirs.close()


def test_a_file_is_read_from_its_beginning_alone(
    give: Give, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines").write_text("one\ntwo\n")
    descriptor = os.open(tmp_path / "lines", os.O_RDONLY)
    give(descriptor)
    assert text_beside_prompt(None) == "one\ntwo"
    os.lseek(descriptor, 4, os.SEEK_SET)  # a loop over the lines has read one
    assert text_beside_prompt(None) == ""
    assert "somebody reads" in capsys.readouterr().err
    assert text_beside_prompt(True) == "two"
    assert text_beside_prompt(None) == ""
    assert capsys.readouterr().err == ""
    sys.stdin.close()


def test_devices_are_not_read(give: Give) -> None:
    for name in ("/dev/null", "/dev/zero"):
        give(os.open(name, os.O_RDONLY))
        assert text_beside_prompt(None) == ""
        sys.stdin.close()


def test_what_is_too_long_or_no_text_is_refused(
    give: Give, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data, words in ((b"x" * (MOST_BYTES + 1), "more than 4 MiB"), (b"\xff", "not text")):
        (tmp_path / "file").write_bytes(data)
        give(os.open(tmp_path / "file", os.O_RDONLY))
        with pytest.raises(UserError, match=words):
            text_beside_prompt(None)
        sys.stdin.close()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    with pytest.raises(UserError, match="not text"):
        text_beside_prompt(None)

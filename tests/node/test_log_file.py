"""The log of a node: private, bounded, and never in the way."""

import logging
import os
import re
import threading
from pathlib import Path

import pytest

from p2pnode.node.lines import LineWriter
from p2pnode.node.log_file import NOTICE, LogFile, log_path, logging_to


def written(path: Path, *lines: str, most_bytes: int = 1000) -> list[str]:
    """Write ``lines`` and return the troubles told."""
    troubles: list[str] = []
    file = LogFile(path, troubles.append, most_bytes=most_bytes)
    for line in lines:
        file.write(line)
    file.close()
    return troubles


def test_what_is_logged_stands_there_with_time_zone_and_level(tmp_path: Path) -> None:
    with logging_to(log_path(tmp_path)):
        logging.getLogger("p2pnode.some.room").log(NOTICE, "kitchen %s", "joined\x1b[2J\nthe swarm")
        logging.getLogger("p2pnode.some.room").debug("a detail")
    (line,) = log_path(tmp_path).read_text().splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} NOTICE  kitchen joined \[2J the swarm", line
    )


def test_an_exception_leaves_its_traceback_there(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log"):
        error = ValueError("odd")
        logging.getLogger("p2pnode").error("it failed", exc_info=error)
    text = (tmp_path / "log").read_text()
    assert "ERROR   it failed\nValueError: odd" in text


def test_a_record_that_cannot_be_written_is_a_line_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own raises

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with logging_to(tmp_path / "log"):
        logging.getLogger("p2pnode").warning("%d peers", "many")
        logging.getLogger("p2pnode").warning("%s", Odd())
        logging.getLogger("p2pnode").warning("all is well")
    first, second, third = (tmp_path / "log").read_text().splitlines()
    assert first.startswith("a record of test_log_file.py:")
    assert first.endswith("cannot be written: TypeError")
    assert second.endswith("cannot be written: RuntimeError")
    assert third.endswith("all is well")


def test_what_other_libraries_log_is_there_with_its_source_within_bounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logging_to(tmp_path / "log"):
        for _ in range(1000):
            error = OSError(24, "Too many open files")
            logging.getLogger("trio.serve_listeners").error("accept: EMFILE", exc_info=error)
    text = (tmp_path / "log").read_text()
    assert "ERROR   trio.serve_listeners: accept: EMFILE\nOSError: [Errno 24]" in text
    assert 16 <= text.count("EMFILE") <= 20
    assert capsys.readouterr().err == ""


def test_the_package_logs_as_before_when_the_node_has_ended(tmp_path: Path) -> None:
    package, root = logging.getLogger("p2pnode"), logging.getLogger()
    before = package.level, list(root.handlers)
    with logging_to(tmp_path / "log"):
        assert package.isEnabledFor(logging.INFO)
    assert (package.level, list(root.handlers)) == before


def test_it_is_private_and_never_larger_than_two_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    path.chmod(0o644)
    assert written(path, *(f"line {number:04}" for number in range(500))) == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert max(one.stat().st_size for one in tmp_path.iterdir()) <= 1000
    assert {one.name for one in tmp_path.iterdir()} == {"log", "log.1"}
    assert path.read_text().endswith("line 0499\n")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_is_said_once_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    (trouble,) = written(path, "one", "two", "three")
    assert str(path) in trouble
    assert trouble.endswith("the node goes on")
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_said_once_and_the_rest_is_left_out() -> None:
    (trouble,) = written(Path("/dev/full"), "one", "two")
    assert "no ordinary file" in trouble or "No space left" in trouble


def test_nobody_waits_for_a_write_that_hangs() -> None:
    began, hang, lines = threading.Event(), threading.Event(), list[str]()

    def write(line: str) -> None:
        began.set()
        hang.wait(10)
        lines.append(line)

    writer = LineWriter(write, "slow", room=3)
    writer.put("0")
    began.wait(10)
    for number in range(1, 10):
        writer.put(str(number))
    writer.close(0.01)  # gives up
    assert lines == []
    hang.set()
    writer.close(5)
    assert lines[:2] == ["0", "(6 lines were left out here: they came too fast)"]
    assert lines[2:] == ["1", "2", "3"]

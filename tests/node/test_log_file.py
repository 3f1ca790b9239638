"""The log of a node: private, bounded, and never in the way."""

import logging
import os
import re
import threading
from pathlib import Path

import pytest

from p2pnode.node.lines import LineWriter
from p2pnode.node.log_file import MOST_OLD, NOTICE, LogFile, log_path, logging_to

KEPT = range(1, MOST_OLD + 1)


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


def test_it_is_private_and_never_larger_than_its_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\n")
    path.chmod(0o644)
    assert written(path, *(f"line {number:04}" for number in range(500))) == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert max(one.stat().st_size for one in tmp_path.iterdir()) <= 1000
    assert {one.name for one in tmp_path.iterdir()} == {"log", *(f"log.{old}" for old in KEPT)}
    files = [tmp_path / f"log.{old}" for old in reversed(KEPT)]
    last = "".join(one.read_text() for one in (*files, path)).splitlines()
    assert last == [f"line {number:04}" for number in range(500 - len(last), 500)]


def test_an_old_file_that_was_taken_away_leaves_a_gap_and_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "log.3").write_text("old\n")
    assert written(tmp_path / "log", *("x" * 90 for _ in range(15))) == []
    assert {one.name for one in tmp_path.iterdir()} == {"log", "log.1", "log.4"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_logrotate_moved_away_is_begun_anew_and_what_it_cut_is_not_full(
    tmp_path: Path,
) -> None:
    path, troubles, clock = tmp_path / "log", list[str](), Clock()
    file = LogFile(path, troubles.append, most_bytes=100, clock=clock)
    file.write("one")
    path.rename(tmp_path / "log-20261128")
    file.write("two, a moment later")
    clock.now += 1.0
    file.write("three")
    assert (tmp_path / "log-20261128").read_text() == "one\ntwo, a moment later\n"
    assert path.read_text() == "three\n"

    path.unlink()
    path.write_text("another's\n")  # as logrotate's "create"
    clock.now += 1.0
    file.write("four")
    assert path.read_text() == "another's\nfour\n"

    file.write("x" * 70)
    os.truncate(path, 0)  # as its "copytruncate"
    clock.now += 1.0
    file.write("y" * 70)
    file.close()
    assert path.read_text() == "y" * 70 + "\n"
    assert not (tmp_path / "log.1").exists()
    assert troubles == []


def test_a_link_put_in_its_place_is_not_followed(tmp_path: Path) -> None:
    path, troubles, clock = tmp_path / "log", list[str](), Clock()
    file = LogFile(path, troubles.append, clock=clock)
    file.write("one")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    clock.now += 1.0
    file.write("two")
    file.close()
    assert len(troubles) == 1
    assert not (tmp_path / "elsewhere").exists()


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

"""What others do to a file changes nothing for who has it mapped."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from p2pnode.engine.ggml import lease, memory
from p2pnode.engine.ggml.mapping import MappedFile
from p2pnode.errors import CapacityError, ModelChangedError, ModelError

SIZE = 3 * 2**20 + 5000

_OTHER = """
import os, sys
for line in sys.stdin:
    path, verb, at = line.rstrip("\\n").split("\\t")
    at = int(at)
    try:
        if verb == "truncate":
            os.truncate(path, at)
        elif verb == "overwrite":
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(b"x" * 70000)
        elif verb == "rewrite":
            with open(path, "wb") as file:
                file.write(b"y" * at)
        elif verb == "rename":
            os.rename(path, path + ".old")
            with open(path, "wb") as file:
                file.write(b"z" * at)
        elif verb == "remove":
            os.unlink(path)
        elif verb == "map":
            import mmap
            with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
                mapped[at:at + 100] = b"w" * 100
    except (OSError, ValueError, IndexError) as error:
        pass
    print("done", flush=True)
"""


class Other:
    """Another process that does to a file what it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _OTHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, path: Path, verb: str, at: int) -> None:
        """Return once it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\t{verb}\t{at}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def other() -> Iterator[Other]:
    process = Other()
    yield process
    process.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(_bytes())
    return path


def _bytes(size: int = SIZE) -> bytes:
    return np.random.default_rng(7).bytes(size)


def _mapped(path: Path) -> MappedFile:
    mapped = MappedFile(path)
    if mapped.is_copied:
        mapped.close()
        pytest.skip("this file system gives no leases")
    return mapped


def test_bytes_are_where_they_are_said_to_be(path: Path) -> None:
    expected = path.read_bytes()
    for leased in (True, False):
        with MappedFile(path, lease=leased) as mapped:
            assert mapped.view(0, SIZE) == expected
            assert mapped.view(5000, 300) == expected[5000:5300]
            assert mapped.address(5000, 1) - mapped.address(0, 1) == 5000
            assert mapped.is_intact
    with MappedFile(path, lease=False) as mapped:
        assert mapped.is_copied


def test_only_the_parts_that_were_named_are_there(path: Path) -> None:
    expected = path.read_bytes()
    parts = [(2 * 2**20, 100), (10, 50), (2 * 2**20 + 5000, 2**20)]
    for leased in (True, False):
        with MappedFile(path, parts, lease=leased) as mapped:
            assert len(mapped.areas) == 2
            for offset, size in parts:
                assert mapped.view(offset, size) == expected[offset : offset + size]
            for offset, size in ((2**20, 1), (10, 60_000), (0, -1), (-1, 1), (SIZE, 1)):
                with pytest.raises(ModelError, match="not loaded"):
                    mapped.address(offset, size)


@pytest.mark.parametrize("verb", ["truncate", "overwrite", "rewrite", "rename", "remove", "map"])
@pytest.mark.parametrize("leased", [True, False])
def test_another_process_changes_nothing(path: Path, other: Other, verb: str, leased: bool) -> None:
    expected = path.read_bytes()
    with MappedFile(path, lease=leased) as mapped:
        address = mapped.address(0, SIZE)
        other(path, verb, 5000)
        assert mapped.view(0, SIZE) == expected
        assert mapped.address(0, SIZE) == address
        assert mapped.is_intact
        assert path.exists() == (verb != "remove")
        if path.exists():
            assert path.read_bytes() != expected


def test_a_thread_that_reads_meanwhile_sees_the_same(path: Path, other: Other) -> None:
    digest = hashlib.sha256(path.read_bytes()).digest()
    with _mapped(path) as mapped:
        view, stop, seen = mapped.view(0, SIZE), threading.Event(), set[bytes]()

        def read() -> None:
            while not stop.is_set():
                seen.add(hashlib.sha256(view).digest())

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for verb, at in (("overwrite", 0), ("truncate", 100), ("rewrite", 2**20)):
            other(path, verb, at)
        stop.set()
        for thread in threads:
            thread.join()
        assert seen == {digest}
        assert mapped.is_copied
        assert mapped.is_intact


_VERBS = st.sampled_from(["truncate", "overwrite", "rewrite", "rename", "map"])


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(1, 300_000),
    deeds=st.lists(st.tuples(_VERBS, st.integers(0, 300_000)), max_size=4),
    copies=st.integers(1, 2),
)
def test_whatever_is_done_to_a_file_its_bytes_stay(
    other: Other, size: int, deeds: list[tuple[str, int]], copies: int
) -> None:
    expected = _bytes(size)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        path = Path(directory) / "weights"
        path.write_bytes(expected)
        mapped = [stack.enter_context(MappedFile(path)) for _ in range(copies)]
        for verb, at in deeds:
            other(path, verb, at)
            assert all(one.view(0, size) == expected for one in mapped)
        assert all(one.is_intact for one in mapped)


def test_a_file_that_is_open_for_writing_is_copied(path: Path) -> None:
    expected = path.read_bytes()
    with path.open("r+b") as file, MappedFile(path) as mapped:
        assert mapped.is_copied
        file.truncate(0)
        assert mapped.view(0, SIZE) == expected


def test_without_a_trustworthy_lease_it_is_copied(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mapped(path).close()
    short = tmp_path / "lease-break-time"
    for setting, value in (
        ("_LOCAL", frozenset[int]()),  # as on a network file system
        ("_BREAK_TIME", tmp_path / "nothing"),
        ("_BREAK_TIME", short),
    ):
        for text in ("9", "", "many"):
            short.write_text(text)
            with monkeypatch.context() as patch:
                patch.setattr(lease, setting, value)
                with MappedFile(path) as mapped:
                    assert mapped.is_copied


def test_our_own_thread_may_write_to_it_too(path: Path) -> None:
    expected = path.read_bytes()
    with _mapped(path) as mapped:
        path.write_bytes(b"new")
        assert mapped.is_copied
        assert mapped.view(0, SIZE) == expected


def test_after_close_nobody_waits(path: Path, other: Other) -> None:
    mapped = _mapped(path)
    mapped.close()
    mapped.close()
    other(path, "truncate", 1)
    assert path.stat().st_size == 1
    with pytest.raises(ModelError, match="not loaded"):
        mapped.address(0, 1)


def test_several_files_are_let_go_one_by_one(tmp_path: Path, other: Other) -> None:
    paths = [tmp_path / f"part{index}" for index in range(3)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 9000)
    with contextlib.ExitStack() as stack:
        mapped = [stack.enter_context(_mapped(path)) for path in paths]
        other(paths[1], "truncate", 0)
        assert [one.is_copied for one in mapped] == [False, True, False]
        for index, one in enumerate(mapped):
            assert one.view(0, 9000) == bytes([index]) * 9000


def test_without_memory_for_a_copy_it_says_so_and_reads_zeros(
    path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_size: int) -> memory.Area:
        raise CapacityError("no memory")

    with _mapped(path) as mapped:
        monkeypatch.setattr(memory, "reserve", refuse)
        other(path, "truncate", 0)
        assert not mapped.is_intact
        assert mapped.view(0, SIZE) == bytes(SIZE)


def test_a_copy_that_came_too_late_is_not_trusted(
    path: Path, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = memory.FileArea.exchange

    def take_too_long(area: memory.FileArea, fill: memory.Fill) -> None:
        exchange(area, fill)
        assert mapped._lease is not None
        mapped._lease.release()  # as the kernel does after 45 s

    monkeypatch.setattr(memory.FileArea, "exchange", take_too_long)
    with _mapped(path) as mapped:
        other(path, "overwrite", 0)
        assert _eventually(lambda: not mapped.is_intact)


def _eventually(condition: Callable[[], bool]) -> bool:
    """Wait for a thread of another's making."""
    while not condition():
        threading.Event().wait(0.001)
    return True


@pytest.mark.parametrize("leased", [True, False])
def test_no_such_file(tmp_path: Path, leased: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for wrong in (tmp_path / "nothing", tmp_path, pipe):
        with pytest.raises(ModelError):
            MappedFile(wrong, lease=leased)


@pytest.mark.parametrize("leased", [True, False])
def test_a_part_past_the_end_is_refused(path: Path, leased: bool) -> None:
    for part in ((0, SIZE + 1), (SIZE, 1), (-5000, 10), (2**62, 1)):
        with pytest.raises(ModelError, match="ends before"):
            MappedFile(path, [part], lease=leased)
    with MappedFile(path, [(SIZE, 0)], lease=leased) as mapped:
        assert len(mapped.areas) <= 1


def test_a_file_cut_short_while_it_is_read_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.fstat

    def cut_after(descriptor: int) -> os.stat_result:
        status = whole(descriptor)
        os.truncate(path, 100)
        return status

    monkeypatch.setattr(os, "fstat", cut_after)
    with pytest.raises(ModelChangedError, match="cut short"):
        MappedFile(path, lease=False)


def test_nothing_may_be_written_to_the_bytes(path: Path) -> None:
    with MappedFile(path) as mapped, pytest.raises(TypeError):
        mapped.view(0, 10)[0] = 1


def test_where_nothing_can_be_exchanged_it_is_copied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_ON_LINUX", False)
    with MappedFile(path) as mapped:
        assert mapped.is_copied
        assert mapped.view(0, SIZE) == path.read_bytes()

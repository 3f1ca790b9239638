"""Locks, accounts and reading, as POSIX has them and as Windows does."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pnode import system


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    (tmp_path / "f").write_bytes(b"0123456789")
    one, other = (os.open(tmp_path / "f", os.O_RDWR) for _ in range(2))
    yield one, other
    os.close(one)
    os.close(other)


def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def locking(descriptor: int, mode: int, size: int) -> None:
        assert (mode, size) == (2, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 1 << 30  # beyond what is in the file
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    msvcrt = SimpleNamespace(LK_LOCK=1, LK_NBLCK=2, locking=locking)
    monkeypatch.setattr(system, "HAS_ACCOUNTS", False)
    monkeypatch.setattr(system, "import_module", {"msvcrt": msvcrt}.__getitem__)


@pytest.mark.parametrize("is_windows", [False, True])
def test_one_holds_a_lock(
    files: tuple[int, int], is_windows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_windows:
        windows(monkeypatch)
    one, other = files
    os.lseek(other, 3, os.SEEK_SET)
    assert system.lock(one)
    assert not system.lock(other)
    assert os.lseek(other, 0, os.SEEK_CUR) == 3


def test_many_share_a_shared_one(files: tuple[int, int]) -> None:
    one, other = files
    assert system.lock(one, shared=True)
    assert system.lock(other, shared=True)
    assert not system.lock(one)


@pytest.mark.skipif(not system.HAS_ACCOUNTS, reason="locks end with the file alone")
def test_a_lock_is_given_up_though_a_copy_of_the_file_is_open(files: tuple[int, int]) -> None:
    one, other = files
    assert system.lock(one, shared=True)
    copy = os.dup(one)  # as a process that begins just now has
    system.unlock(one)
    assert system.lock(other)
    os.close(copy)


def test_where_locks_cannot_be_shared_a_shared_one_is_none(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows(monkeypatch)
    one, other = files
    assert system.lock(one, shared=True)
    assert system.lock(other)


def test_reading_at_a_place_leaves_no_trace_in_it(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert system.read_at(files[0], 3, 4) == b"456"
    monkeypatch.delattr(os, "pread")
    assert system.read_at(files[0], 3, 4) == b"456"
    assert system.read_at(files[0], 30, 8) == b"89"
    assert system.read_at(files[0], 3, 50) == b""


def test_whose_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.touch(mode=0o600)
    assert system.is_ours(path.stat())
    assert system.is_private(path.stat())
    path.chmod(0o640)
    assert not system.is_private(path.stat())
    monkeypatch.setattr(os, "getuid", lambda: 2**31)
    assert not system.is_ours(path.stat())
    monkeypatch.setattr(system, "HAS_ACCOUNTS", False)
    assert system.is_private(path.stat())
    assert system.account()

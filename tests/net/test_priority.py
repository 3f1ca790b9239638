"""Slices and nice values, asked of the kernel and read back from it."""

import ctypes
import os
import platform
import struct
import sys
import threading

import pytest

from p2pnode.net.priority import let_others_first, take_short_slices

NUMBERS = {"x86_64": 315, "aarch64": 275}  # of sched_getattr
ATTRIBUTES = struct.Struct("=IIQiIQQQII")


def read_back() -> tuple[int, float]:
    """Return the calling thread's nice value, and its slice in seconds."""
    room = ctypes.create_string_buffer(ATTRIBUTES.size)
    call = NUMBERS[platform.machine()]
    assert ctypes.CDLL(None).syscall(call, 0, room, ATTRIBUTES.size, 0) == 0
    _, _, _, nice, _, runtime, *_ = ATTRIBUTES.unpack(room.raw)
    return nice, runtime / 1e9


def in_a_thread(nice: int | None, policy: int | None) -> tuple[bool, int, float]:
    found: list[tuple[bool, int, float]] = []

    def ask() -> None:
        if nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        if policy is not None:
            os.sched_setscheduler(0, policy, os.sched_param(0))
        found.append((take_short_slices(), *read_back()))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in NUMBERS, reason="Linux alone has them"
)
def test_a_thread_gets_short_slices_and_keeps_its_nice_value() -> None:
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    if (major, minor) < (6, 12):
        pytest.skip("slices came with Linux 6.12")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    heard, nice, seconds = in_a_thread(before + 3, None)
    assert heard
    assert nice == before + 3
    assert seconds == pytest.approx(300e-6)
    if sys.platform == "linux":
        assert not in_a_thread(None, os.SCHED_BATCH)[0]


def test_where_there_is_no_such_thing_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    assert not take_short_slices()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no nice values")
@pytest.mark.parametrize(("nice", "steps", "then"), [(3, 5, 8), (18, 5, 19), (19, 5, 19)])
def test_a_thread_gives_way_alone_and_those_that_it_starts(
    nice: int, steps: int, then: int
) -> None:
    found: list[int] = []

    def note() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, 0))

    def give_way() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        let_others_first(steps)
        note()
        inner = threading.Thread(target=note)
        inner.start()
        inner.join()

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=give_way)
    thread.start()
    thread.join()
    assert found == [then, then]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is asked")
def test_a_sandbox_that_forbids_it_changes_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*asked: object) -> int:
        raise PermissionError(asked)

    monkeypatch.setattr(os, "setpriority", forbidden)
    let_others_first()
    monkeypatch.setattr(os, "sched_getscheduler", forbidden)
    assert not take_short_slices()

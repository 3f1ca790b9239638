"""How late the loop's timers are, and how often that is asked."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnode.net.lateness import BUSY_PERIOD, PERIOD, WINDOW, Lateness


async def _wakes(seconds: float, cpu_share: float) -> int:
    """Return how often a process that uses ``cpu_share`` of a core is asked."""
    count = 0

    def awake() -> None:
        nonlocal count
        count += 1

    lateness = Lateness(lambda: cpu_share * trio.current_time())
    with trio.move_on_after(seconds):
        await lateness.run(awake)
    return count


async def test_an_idle_process_is_woken_once_a_second(autojump_clock: MockClock) -> None:
    assert await _wakes(20.5 * PERIOD, 0.01) == 20


async def test_a_busy_process_is_asked_often_enough_for_a_p99(autojump_clock: MockClock) -> None:
    assert await _wakes(WINDOW + PERIOD, 0.5) >= 0.9 * WINDOW / BUSY_PERIOD


async def test_what_it_was_late_is_told_and_fades(mock_clock: MockClock) -> None:
    lateness = Lateness(lambda: 0.0)
    assert lateness.late_ms() == (0.0, 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lateness.run, lambda: None)
        await wait_all_tasks_blocked()
        mock_clock.jump(PERIOD + 0.03)
        await wait_all_tasks_blocked()
        assert list(lateness.late_ms()) == pytest.approx([30, 30])
        for _ in range(int(WINDOW / PERIOD) + 1):
            mock_clock.jump(PERIOD)
            await wait_all_tasks_blocked()
        assert list(lateness.late_ms()) == pytest.approx([0, 0], abs=1e-6)
        nursery.cancel_scope.cancel()

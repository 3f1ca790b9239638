"""Looking at the machine, on virtual time, with a load and a clock of the tests' own."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pnode.node.quiet_hours import QuietHours
from p2pnode.node.rest_watch import RestWatch
from p2pnode.node.resting import Load, Rest, RestConfig
from p2pnode.wire.rest import RestCause

IDLE = RestConfig(when_idle=True)


class Core:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[RestCause | None] = []

    def rest(self, rest: Rest | None, now: float) -> None:
        assert now == trio.current_time()
        self.told.append(None if rest is None else rest.cause)

    def call(self, command: Callable[[Any, float], Any]) -> Any:
        return command(self, trio.current_time())


async def looks(watch: RestWatch, clock: MockClock, seconds: float) -> None:
    for _ in range(round(4 * seconds)):
        await watch.look()
        clock.jump(0.25)


async def test_a_node_is_told_once_that_it_rests_and_once_that_it_does_no_more(
    mock_clock: MockClock,
) -> None:
    core, used = Core(), [0.6]
    watch = RestWatch(IDLE, core.call, lambda: Load(used[0]))
    await looks(watch, mock_clock, 3)
    assert core.told == [RestCause.CPU]
    assert (watch.why, watch.owners_cpu) == ("the owner uses 60% of the CPU", 0.6)
    used[0] = 0.01
    await looks(watch, mock_clock, 29)
    assert core.told == [RestCause.CPU]
    await looks(watch, mock_clock, 2)
    assert core.told == [RestCause.CPU, None]
    assert (watch.why, watch.owners_cpu) == ("", 0.01)


async def test_quiet_hours_need_no_look_at_the_load(mock_clock: MockClock) -> None:
    def load() -> Load:
        raise AssertionError("nobody asked for that")

    core, minute = Core(), [60 * 21 + 59]
    hours = RestConfig(quiet_hours=(QuietHours.parse("22:00-07:00"),))
    watch = RestWatch(hours, core.call, load, lambda: minute[0])
    await looks(watch, mock_clock, 1)
    assert core.told == []
    minute[0] += 1
    await looks(watch, mock_clock, 1)
    assert (watch.why, watch.owners_cpu) == ("quiet hours until 07:00", None)
    minute[0] = 7 * 60
    await looks(watch, mock_clock, 1)
    assert core.told == [RestCause.HOURS, None]


async def test_one_cause_may_follow_another(mock_clock: MockClock) -> None:
    core, minute = Core(), [0]
    config = RestConfig(when_idle=True, quiet_hours=(QuietHours.parse("00:00-01:00"),))
    watch = RestWatch(config, core.call, lambda: Load(0.9), lambda: minute[0])
    await looks(watch, mock_clock, 2)
    minute[0] = 60
    await looks(watch, mock_clock, 2)
    assert core.told == [RestCause.HOURS, RestCause.CPU]


async def test_the_clock_is_looked_at_every_second(
    autojump_clock: MockClock,
) -> None:
    core, seen = Core(), list[float]()

    def minute() -> int:
        seen.append(trio.current_time())
        return 0

    config = RestConfig(quiet_hours=(QuietHours.parse("12:00-13:00"),))
    start = trio.current_time()
    with trio.move_on_after(3.5):
        await RestWatch(config, core.call, minute=minute).run()
    assert [at - start for at in seen] == pytest.approx([0, 1, 2, 3])


async def test_a_node_that_never_rests_looks_at_nothing() -> None:
    await RestWatch(RestConfig(), Core().call, minute=lambda: 1 // 0).run()

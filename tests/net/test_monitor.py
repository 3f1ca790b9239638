"""What happens under the lock, each step called here from one thread in virtual time."""

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from p2pnode.net.jobs import Finished, Job
from p2pnode.net.monitor import BRIEF_SECONDS, GATHERED, STUCK_SECONDS, Monitor
from p2pnode.net.pace import Pace
from p2pnode.net.waiter import Waiter
from p2pnode.sansio import Address
from tests.net.toys import PEER, ToyCore, ToySocket, job_of

PACE = {"work load": math.inf, "work long": 10_000.0, "work brief": 10.0}
"""Units of each kind of work; at 1 ms a unit."""


class Signals:
    """Notes who was woken, beside what was sent."""

    def __init__(self, socket: ToySocket) -> None:
        self.log: list[str] = []
        self._socket = socket
        socket.send = self._send  # type: ignore[method-assign]

    def wake(self) -> None:
        self.log.append("wake thread")

    def wake_loop(self) -> None:
        self.log.append("wake loop")

    def _send(self, payload: bytes, destination: object, *, is_probe: bool = False) -> bool:
        self.log.append(f"send {payload.decode()}")
        return True

    def taken(self) -> list[str]:
        taken, self.log = self.log, []
        return taken


class Bench:
    """A monitor, and what it did."""

    def __init__(self) -> None:
        self.core = ToyCore()
        self.socket = ToySocket()
        self.signals = Signals(self.socket)
        self.monitor: Monitor[ToyCore, str] = Monitor(
            self.core, self.socket, lambda event: job_of(event, units=_units), self.signals
        )

    def know(self) -> None:
        """Let it have seen a job of each size, and wait in the thread."""
        for event in PACE:
            job = job_of(event, units=_units)
            assert job is not None
            self.monitor._pace.learn(job.units, job.units / 1e3)
        self.monitor.rest()
        assert self.waiter() is Waiter.THREAD
        self.signals.taken()

    def waiter(self) -> Waiter:
        return self.monitor.waiter

    def hear(self, data: bytes) -> Job[ToyCore, object] | None:
        """Let the thread take a datagram; return the job it begins."""
        self.socket.waiting.append((data, PEER))
        taken = self.monitor.take_or_begin()
        assert taken is not None
        return taken[0]

    def finish(self, job: Job[ToyCore, object] | None, seconds: float) -> object:
        assert job is not None
        return self.monitor.finish(job, Finished(job.run()), seconds)


def _units(event: str) -> float:
    return PACE.get(event, 10.0)


@pytest.fixture(name="bench")
async def _bench(autojump_clock: trio.testing.MockClock) -> Bench:
    bench = Bench()
    bench.know()
    return bench


async def test_the_thread_takes_over_when_it_has_nothing_to_compute() -> None:
    bench = Bench()
    assert bench.waiter() is Waiter.LOOP
    assert bench.monitor.rest() is None
    assert bench.waiter() is Waiter.THREAD
    assert bench.signals.taken() == ["wake loop"]


async def test_brief_work_begins_without_a_word_to_the_loop(bench: Bench) -> None:
    job = bench.hear(b"work brief")
    assert job is not None
    assert bench.waiter() is Waiter.NOBODY
    assert bench.signals.taken() == []  # its acknowledgement waits for its end
    assert bench.finish(job, 0.01) is None
    assert bench.signals.taken() == ["send re: work brief", "send result"]
    bench.monitor.rest()
    assert bench.waiter() is Waiter.THREAD
    assert bench.signals.taken() == []


@pytest.mark.parametrize("kind", [b"work long", b"work load", b"work never seen"])
async def test_others_are_told_before_long_work_begins(bench: Bench, kind: bytes) -> None:
    if kind == b"work never seen":
        bench.monitor._pace = Pace()
    job = bench.hear(kind)
    assert job is not None
    assert bench.waiter() is Waiter.LOOP
    assert "wake loop" in bench.signals.taken()


async def test_long_work_after_brief_work_is_long(bench: Bench) -> None:
    for _ in range(3):
        bench.finish(bench.hear(b"work brief"), 0.01)
        bench.monitor.rest()
    bench.signals.taken()
    bench.hear(b"work long")
    assert bench.waiter() is Waiter.LOOP
    assert "wake loop" in bench.signals.taken()


async def test_brief_work_after_long_work_is_brief(bench: Bench) -> None:
    bench.finish(bench.hear(b"work long"), 10.0)
    bench.monitor.rest()
    bench.signals.taken()
    bench.hear(b"work brief")
    assert bench.waiter() is Waiter.NOBODY
    assert bench.signals.taken() == []


async def test_many_brief_jobs_in_a_row_are_not_brief_together(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.core.events += ["work brief"] * 5
    job = bench.hear(b"work brief")
    waiters = []
    while job is not None:
        waiters.append(bench.waiter())
        autojump_clock.jump(0.012)
        job = bench.monitor.finish(job, Finished(None), 0.012)
    assert waiters == [Waiter.NOBODY, Waiter.NOBODY, *[Waiter.LOOP] * 4]
    assert BRIEF_SECONDS == 0.03


async def test_the_loop_waits_where_something_is_due_while_brief_work_goes_on(
    bench: Bench,
) -> None:
    bench.core.timers.append(trio.current_time())
    assert bench.hear(b"work brief") is not None
    assert bench.waiter() is Waiter.LOOP
    assert "wake loop" in bench.signals.taken()


async def test_a_job_that_nobody_wants_any_more_is_dropped(bench: Bench) -> None:
    bench.core.unwanted.add("work brief")
    assert bench.hear(b"work brief") is None
    assert bench.waiter() is Waiter.THREAD
    assert not bench.monitor.has_jobs


async def test_what_is_no_work_is_answered_and_told_to_the_loop(bench: Bench) -> None:
    assert bench.monitor.take_or_begin() is None
    bench.socket.waiting.append((b"news", PEER))
    assert bench.monitor.take_or_begin() == (None, True)
    assert bench.signals.taken() == ["wake loop", "send re: news"]  # sending comes last
    assert bench.monitor.sort() == (False, ["news"])


async def test_garbage_is_not_worth_polling_for_more(bench: Bench) -> None:
    bench.socket.waiting.append((b"bad", PEER))
    assert bench.monitor.take_or_begin() == (None, False)


async def test_events_are_handed_over_before_a_result_is_sent(bench: Bench) -> None:
    job = bench.hear(b"work brief")
    bench.core.events.append("token")
    bench.core.outbox.clear()
    bench.finish(job, 0.01)
    assert bench.signals.taken() == ["wake loop", "send result"]
    assert bench.monitor.sort() == (False, ["token"])


async def test_a_sleeping_thread_is_woken_for_a_job_and_a_busy_one_is_not(bench: Bench) -> None:
    bench.core.events.append("work brief")
    assert bench.monitor.sort() == (True, [])
    assert bench.signals.taken() == ["wake thread"]
    bench.core.events.append("work brief")
    assert bench.monitor.sort() == (True, [])
    assert bench.signals.taken() == []
    assert bench.monitor.rest() == 0.0  # it does not sleep while jobs wait
    assert bench.monitor.begin() is not None


async def test_a_rest_fires_what_is_due_and_lasts_until_the_next_timer(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    now = trio.current_time()
    bench.core.timers = [now - 1, now + 5]
    assert bench.monitor.rest() == pytest.approx(5)
    assert bench.core.fired == [now]
    assert bench.signals.taken() == ["wake loop"]
    assert bench.monitor.sort() == (False, ["timer"])


async def test_a_core_that_never_has_enough_does_not_hold_the_lock_for_ever(bench: Bench) -> None:
    class Restless(ToyCore):
        def handle_timeout(self, now: float) -> None:
            super().handle_timeout(now)
            self.timers.append(now)

    core = Restless()
    core.timers.append(0.0)
    monitor: Monitor[ToyCore, str] = Monitor(core, bench.socket, job_of, bench.signals)
    assert monitor.rest() == 0.0


async def test_the_loops_alarm_is_late_for_timers_that_the_thread_keeps(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    now = trio.current_time()
    bench.core.timers = [now + 5]
    bench.monitor.rest()
    assert bench.monitor.next_alarm() == pytest.approx(now + 5 + STUCK_SECONDS)
    bench.core.timers.append(now + 1)  # a command of the loop made it: the thread does not know
    assert bench.monitor.next_alarm() == pytest.approx(now + 1)
    bench.core.timers.remove(now + 1)
    assert bench.monitor.next_alarm() is None  # it only moves forward in haste
    assert bench.monitor.next_alarm(anew=True) == pytest.approx(now + 5 + STUCK_SECONDS)


async def test_every_timer_is_the_loops_while_it_waits(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    now = trio.current_time()
    bench.core.timers = [now + 5]
    bench.monitor.rest()
    bench.monitor.next_alarm(anew=True)
    job = bench.hear(b"work long")
    assert bench.monitor.next_alarm() == pytest.approx(now + 5)
    bench.core.events.append("work long")
    bench.signals.taken()
    bench.core.timers.append(now + 1)  # a result made it
    bench.finish(job, 10.0)
    assert bench.signals.taken().count("wake loop") == 1  # its alarm is set for later
    assert bench.monitor.next_alarm() == pytest.approx(now + 1)


async def test_the_loop_takes_over_from_a_brief_job_that_is_none(
    bench: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    bench.hear(b"work brief")
    bench.monitor.take_over()
    assert bench.waiter() is Waiter.NOBODY
    autojump_clock.jump(STUCK_SECONDS)
    bench.monitor.take_over()
    assert bench.waiter() is Waiter.LOOP
    bench.monitor.take_over()
    assert bench.waiter() is Waiter.LOOP


Ask = Callable[[Bench, Job[ToyCore, object]], object]
ASKED_AFTER_A_FAILURE: dict[str, tuple[Ask, object]] = {
    "take": (lambda bench, job: bench.monitor.take(), None),
    "sort": (lambda bench, job: bench.monitor.sort(), (False, [])),
    "sort_and_send": (lambda bench, job: bench.monitor.sort_and_send(), False),
    "send": (lambda bench, job: bench.monitor.send(), None),
    "send_and_fire": (lambda bench, job: bench.monitor.send_and_fire(), False),
    "next_alarm": (lambda bench, job: bench.monitor.next_alarm(anew=True), None),
    "take_over": (lambda bench, job: bench.monitor.take_over(), None),
    "begin": (lambda bench, job: bench.monitor.begin(), None),
    "finish": (lambda bench, job: bench.monitor.finish(job, Finished(1), 0.01), None),
    "take_or_begin": (lambda bench, job: bench.monitor.take_or_begin(), None),
    "rest": (lambda bench, job: bench.monitor.rest(), 0.0),
}


@pytest.mark.parametrize("name", ASKED_AFTER_A_FAILURE)
async def test_after_a_failure_the_core_is_left_alone_whoever_asks(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []

    class Broken(ToyCore):
        def __getattribute__(self, attribute: str) -> object:
            touched.append(attribute)
            return super().__getattribute__(attribute)

    job = bench.hear(b"work brief")
    assert job is not None
    bench.core.events += ["work brief", "news"]
    bench.core.timers.append(trio.current_time())
    bench.monitor.sort()
    bench.signals.taken()
    bench.socket.waiting.append((b"more", PEER))
    bench.monitor.fail(ZeroDivisionError())
    monkeypatch.setattr(bench.core, "__class__", Broken)
    ask, nothing = ASKED_AFTER_A_FAILURE[name]
    assert ask(bench, job) == nothing
    assert touched == []
    assert bench.signals.taken() == []
    assert bench.waiter() is Waiter.NOBODY


Step = Callable[[Bench], object]
STEPS: dict[str, Step] = {
    "hear news": lambda bench: bench.hear(b"news"),
    "loop takes": lambda bench: bench.monitor.take(),
    "loop sorts": lambda bench: bench.monitor.sort(),
    "loop fires": lambda bench: bench.monitor.send_and_fire(),
    "loop sets its alarm": lambda bench: bench.monitor.next_alarm(),
    "timer soon": lambda bench: bench.core.timers.append(trio.current_time() + 0.01),
    "timer late": lambda bench: bench.core.timers.append(trio.current_time() + 10),
    "a job from the loop": lambda bench: bench.core.events.append("work long"),
    "loop takes over": lambda bench: bench.monitor.take_over(),
}
JOBS = {"brief": b"work brief", "long": b"work long"}


@given(
    st.lists(
        st.tuples(st.sampled_from([*STEPS, *JOBS]), st.sampled_from([0.0, 0.001, 0.03])),
        max_size=40,
    )
)
def test_what_is_said_of_its_fields_holds_whatever_happens(steps: list[tuple[str, float]]) -> None:
    async def run() -> None:
        bench = Bench()
        bench.know()
        job: Job[ToyCore, object] | None = None
        for name, seconds in steps:
            clock.jump(seconds)
            if name in STEPS and not (name == "hear news" and job is not None):
                STEPS[name](bench)
            elif name in JOBS:  # the thread's own turn: it ends its job, and waits for the next
                while job is not None:
                    job = bench.monitor.finish(job, Finished(None), seconds)
                bench.monitor.rest()
                job = bench.hear(JOBS[name])
            _check(bench)
        assert bench.core.times == sorted(bench.core.times)

    clock = trio.testing.MockClock()
    trio.run(run, clock=clock)


def _check(bench: Bench) -> None:
    monitor = bench.monitor
    assert (monitor._kept_from is None) == (bench.waiter() is Waiter.LOOP)
    if monitor._is_asleep:
        assert bench.waiter() is Waiter.THREAD
        assert not monitor.has_jobs
    if bench.waiter() is Waiter.NOBODY:
        assert monitor._last_read <= monitor.now()


# Work that several may share


class StepCore(ToyCore):
    """Asks for a step over all rows that came, one step at a time, of so many sessions."""

    def __init__(self, sessions: int) -> None:
        super().__init__()
        self.sessions = sessions
        self.rows = 0
        self.is_busy = False

    @property
    def gathers(self) -> bool:
        return not self.is_busy and 0 < self.rows < self.sessions

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        self.heard.append(data.decode())
        self.rows += data == b"row"

    def take_events(self) -> list[str]:
        if self.rows and not self.is_busy:
            self.events.append(f"work {self.rows}")
            self.rows, self.is_busy = 0, True
        return super().take_events()

    def finished(self, result: object) -> None:
        super().finished(result)
        self.is_busy = False


def step_of(event: str) -> Job[StepCore, object] | None:
    job: Any = job_of(event)
    return cast("Job[StepCore, object] | None", job)


class Sharing:
    """A monitor of such a core."""

    def __init__(self, sessions: int) -> None:
        self.core = StepCore(sessions)
        self.socket = ToySocket()
        self.signals = Signals(self.socket)
        self.monitor: Monitor[StepCore, str] = Monitor(
            self.core, self.socket, step_of, self.signals, lambda core: core.gathers
        )
        self.monitor.rest()
        self.signals.taken()

    def begin(self) -> Job[StepCore, object]:
        taken = self.monitor.take_or_begin()
        assert taken is not None
        assert taken[0] is not None
        return taken[0]


async def test_what_has_arrived_is_taken_before_a_step_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sharing = Sharing(sessions=4)
    sharing.socket.arrive(b"row", b"row", b"other", b"row")
    assert sharing.begin().run() == "work 3"


async def test_no_more_is_taken_once_every_session_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sharing = Sharing(sessions=1)
    sharing.socket.arrive(b"row", b"other")
    assert sharing.begin().run() == "work 1"
    assert sharing.core.heard == ["row"], "a single session's step begins at once"


async def test_results_leave_before_more_is_taken_for_the_next_step(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sharing = Sharing(sessions=4)
    sharing.socket.arrive(b"row")
    job = sharing.begin()
    sharing.core.rows = 1  # it came while the loop waited at the socket
    sharing.socket.arrive(b"row", b"row")
    log = sharing.signals.log
    receive = sharing.socket.receive

    def noted() -> tuple[bytes, Address] | None:
        log.append("receive")
        return receive()

    sharing.socket.receive = noted  # type: ignore[method-assign]
    following = sharing.monitor.finish(job, Finished(job.run()), 0.01)
    assert following is not None
    assert following.run() == "work 3"
    assert log.index("send result") < log.index("receive")


async def test_what_is_taken_for_a_step_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sharing = Sharing(sessions=1000)
    sharing.socket.arrive(*[b"row"] * 500)
    assert sharing.begin().run() == f"work {GATHERED + 1}"

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given, strategies as st

from p2pnode.sansio import Address
from p2pnode.testing.pair import Endpoints
from p2pnode.transport.schedule import Schedule
from p2pnode.transport.timers import Timer, Timers


@dataclass
class Timed:
    number: int
    timers: Timers = field(default_factory=Timers)
    wake: float = inf
    ended: str | None = None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arm", "end", "fire"]),
            st.integers(0, 4),
            st.sampled_from(Timer),
            st.one_of(st.none(), st.integers(0, 30)),
        ),
        max_size=80,
    )
)
def test_the_earliest_timer_is_the_one_a_look_at_all_of_them_finds(
    steps: list[tuple[str, int, Timer, int | None]],
) -> None:
    everyone = [Timed(number) for number in range(5)]
    schedule = Schedule[Timed]()
    for what, which, timer, moment in steps:
        chosen = everyone[which]
        if what == "fire":
            now = float(moment or 0)
            due = {one.number for one in everyone if not one.ended and one.timers.earliest <= now}
            taken = schedule.take_due(now)
            assert sorted(one.number for one in taken) == sorted(due)
            assert [one.timers.earliest for one in taken] == sorted(
                one.timers.earliest for one in taken
            )
            for one in taken:
                schedule.take(one)
                while one.timers.pop_due(now) is not None:
                    pass
        elif chosen.ended is None:
            schedule.take(chosen)
            if what == "arm":
                chosen.timers.arm(timer, None if moment is None else float(moment))
            else:
                chosen.ended = "over"
                schedule.drop(chosen)
        alive = [one.timers.earliest for one in everyone if one.ended is None]
        assert schedule.next_timeout() == min(alive, default=inf)


def looks_for_a_message(monkeypatch: pytest.MonkeyPatch, sessions: int) -> int:
    """Return how often timers are looked at while one message of 20,000 bytes is carried."""
    peers = Endpoints(1)
    hub = peers.add("hub")
    spokes: list[Address] = []
    for number in range(sessions):
        spokes.append(peers.add(f"spoke {number}"))
        peers.connect(spokes[-1], hub)
        peers.network.run(0.11)
    peers.network.run(1)
    looks = 0

    def count(timers: Timers) -> float:
        nonlocal looks
        looks += 1
        return min(timers._moments)

    with monkeypatch.context() as patched:
        patched.setattr(Timers, "earliest", property(count))
        peers.send(spokes[0], hub, bytes(20_000))
        peers.send(hub, spokes[0], bytes(20_000))
        peers.network.run(0.05)
    assert peers.received(spokes[0]) == [bytes(20_000)]
    return looks


def test_the_work_for_a_message_does_not_grow_with_the_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, many = (looks_for_a_message(monkeypatch, sessions) for sessions in (2, 60))
    assert many < 1.5 * few

"""When to step back and when to come back, and no flapping whatever the load does."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError
from p2pnode.node.quiet_hours import QuietHours
from p2pnode.node.resting import Load, Rest, RestConfig, RestPolicy
from p2pnode.wire.rest import RestCause

CONFIG = RestConfig(when_idle=True)
NOON = 12 * 60


class Owner:
    """Looks at a policy every quarter of a second."""

    def __init__(self, config: RestConfig = CONFIG) -> None:
        self.policy = RestPolicy(config)
        self.now = 100.0
        self.rest = self.policy.look(Load(0.0), NOON, self.now)

    def uses(self, load: Load, seconds: float) -> None:
        for _ in range(round(seconds / CONFIG.look_every)):
            self.now += CONFIG.look_every
            self.rest = self.policy.look(load, NOON, self.now)


def test_it_steps_back_when_the_owner_has_worked_for_half_a_second() -> None:
    owner = Owner()
    owner.uses(Load(0.63), 0.25)
    assert owner.rest is None
    owner.uses(Load(0.63), 0.25)
    assert owner.rest == Rest(RestCause.CPU, "the owner uses 63% of the CPU")


def test_a_moment_of_work_is_none() -> None:
    owner = Owner()
    for _ in range(20):
        owner.uses(Load(0.9), 0.25)
        owner.uses(Load(0.2), 0.25)
    assert owner.rest is None


def test_it_comes_back_when_the_owner_was_gone_for_half_a_minute() -> None:
    owner = Owner()
    owner.uses(Load(0.9), 1)
    owner.uses(Load(0.05), 29.75)
    assert owner.rest is not None
    assert owner.rest.words == "the owner has used the CPU; computes again in 0 s"
    owner.uses(Load(0.05), 0.25)
    assert owner.rest is None


def test_between_the_bounds_all_stays_as_it_is() -> None:
    owner = Owner()
    owner.uses(Load(0.2), 60)
    assert owner.rest is None
    owner.uses(Load(0.3), 1)
    owner.uses(Load(0.05), 29)
    owner.uses(Load(0.2), 60)
    owner.uses(Load(0.05), 29)
    assert owner.rest is not None


def test_a_gpu_counts_as_the_processor_does() -> None:
    owner = Owner()
    owner.uses(Load(0.01, 0.5), 0.5)
    assert owner.rest == Rest(RestCause.GPU, "the owner uses 50% of the GPU")
    owner.uses(Load(0.01, 0.0), 30)
    assert owner.rest is None


def test_what_nobody_could_tell_changes_nothing() -> None:
    owner = Owner()
    owner.uses(Load(0.9), 0.25)
    owner.uses(Load(), 5)
    assert owner.rest is None
    owner.uses(Load(0.9), 0.5)
    assert owner.rest is not None


def test_a_look_over_a_sleep_of_the_machine_says_nothing() -> None:
    owner = Owner()
    owner.uses(Load(0.9), 1)
    owner.now += 3600
    owner.uses(Load(0.0), 0.25)
    assert owner.rest is not None
    owner.uses(Load(0.0), 30)
    assert owner.rest is None


def test_quiet_hours_come_first_and_go_by_the_minute() -> None:
    hours = (QuietHours.parse("22:00-07:00"), QuietHours.parse("12:00-13:00"))
    policy = RestPolicy(RestConfig(quiet_hours=hours))
    found = {minute: policy.look(Load(), minute, 1.0) for minute in range(1440)}
    assert [minute for minute, rest in found.items() if rest is None] == [
        *range(7 * 60, 12 * 60),
        *range(13 * 60, 22 * 60),
    ]
    assert found[0] == Rest(RestCause.HOURS, "quiet hours until 07:00")
    assert found[12 * 60] == Rest(RestCause.HOURS, "quiet hours until 13:00")


def test_a_clock_that_is_set_back_makes_them_longer_and_nothing_else() -> None:
    """As in autumn: 02:59 is followed by 02:00."""
    policy = RestPolicy(RestConfig(quiet_hours=(QuietHours.parse("02:30-03:00"),)))
    minutes = [*range(140, 180), *range(120, 190)]
    quiet = [policy.look(Load(), at, float(60 * n)) is not None for n, at in enumerate(minutes)]
    assert sum(quiet) == 60
    assert not quiet[-1]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 200)), max_size=40))
def test_no_load_makes_it_flap(parts: list[tuple[float, int]]) -> None:
    owner = Owner()
    changes: list[tuple[float, bool]] = []
    for share, looks in parts:
        for _ in range(looks):
            before = owner.rest is not None
            owner.uses(Load(share), CONFIG.look_every)
            if (owner.rest is not None) is not before:
                changes.append((owner.now, owner.rest is not None))
    for (earlier, was), (later, rests) in pairwise(changes):
        assert was is not rests
        assert later - earlier >= (CONFIG.above_for if rests else CONFIG.below_for)


@given(st.lists(st.floats(0.2501, 1), min_size=4, max_size=4), st.floats(0, 0.25))
def test_it_steps_back_within_a_second_of_looks(shares: list[float], first: float) -> None:
    """The first look sees only the end of a quarter of a second of work."""
    owner = Owner()
    owner.uses(Load(first), 0.25)
    for share in shares[:2]:
        owner.uses(Load(share), 0.25)
    assert owner.rest is not None


@given(st.floats(0.2501, 1), st.floats(0, 0.499))
def test_it_does_so_within_a_second_also_when_work_begins_between_two_looks(
    used: float, begins: float
) -> None:
    """The owner comes ``begins`` seconds after the last look of a node with nothing to do."""
    policy = RestPolicy(CONFIG)
    policy.look(Load(0.0), NOON, 0.0)
    now = CONFIG.look_idle
    rest = policy.look(Load(used * (now - begins)), NOON, now)
    while rest is None and now < 5:
        now += CONFIG.look_every
        rest = policy.look(Load(used), NOON, now)
    assert now - begins <= 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"above": 0.1},
        {"below": 0.0},
        {"above": 1.0},
        {"look_every": 0.3},
        {"look_every": 0.0},
        {"below_for": 0.4},
        {"longest_look": 0.9},
        {"look_idle": 0.2},
        {"look_idle": 0.6},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="rest settings"):
        replace(CONFIG, **wrong)

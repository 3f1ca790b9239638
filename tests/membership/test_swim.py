"""Whole swarms: joining, dying, refuting, leaving, coming back."""

from dataclasses import replace
from functools import partial

import pytest

from p2pnode import CORES
from p2pnode.membership import (
    Health,
    MemberDied,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberSuspected,
    MemberUpdated,
    lan,
    simulation,
    wan,
)
from p2pnode.testing.links import Bernoulli
from p2pnode.testing.membership import LAN, Swarm


def test_those_who_join_know_one_another() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c", settle=1)
    assert swarm.agrees()
    assert swarm.count(MemberJoined) == 6


@pytest.mark.parametrize("seed", range(20))
def test_a_killed_node_of_three_is_dead_within_two_seconds(seed: int) -> None:
    swarm = Swarm(seed)
    swarm.grow("a", "b", "c", settle=5 + seed * 0.07)
    killed = swarm.network.now
    swarm.kill("c")
    swarm.run(2.0)
    for name in "ab":
        assert swarm.story_of(name, since=killed) == [MemberSuspected, MemberDied]


def test_the_lan_bound_for_three_is_within_two_seconds() -> None:
    assert lan().detection_bound(3) == pytest.approx(1.79)
    assert lan().detection_bound(2) <= 1.5


def test_a_member_the_transport_finds_silent_is_suspected_at_once() -> None:
    swarm = Swarm(config=replace(wan(), probe_interval=60))
    swarm.grow("a", "b", "c", settle=1)
    killed = swarm.network.now
    swarm.kill("c")
    a, c = swarm.cores["a"], swarm.ids(["c"])[0]
    swarm.network.call(a.node_id, lambda now: a.report_unresponsive(c, now))
    swarm.run(5)
    ((at, _),) = swarm.events("a", MemberSuspected)
    assert at == pytest.approx(killed + 2 * swarm.config.ack_timeout)


def test_a_member_wrongly_found_silent_is_not_suspected() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    a, c = swarm.cores["a"], swarm.cores["c"].node_id
    swarm.network.call(a.node_id, lambda now: a.report_unresponsive(c, now))
    swarm.run(5)
    assert swarm.count(MemberSuspected) == 0


def test_a_suspect_that_lives_refutes() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    swarm.network.stall(swarm.cores["c"].node_id, 0.7)
    swarm.run(0.69)
    assert swarm.health("a", "c") is Health.SUSPECT
    swarm.run(5)
    assert swarm.agrees()
    for name in "ab":
        assert swarm.story_of(name, since=5) == [MemberSuspected, MemberRefuted]


def test_one_who_leaves_has_left_and_is_not_raised_by_old_gossip() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    old = swarm.cores["a"]._members.entry(swarm.cores["c"].node_id)
    assert old is not None
    encoded = old.signed.encoded
    swarm.leave("c")
    swarm.run(1)
    assert not swarm.cores["c"]._broadcasts  # nothing is left to be told
    swarm.kill("c")
    for name in "ab":
        assert swarm.health(name, "c") is Health.LEFT
    head = swarm.replay_head("b")
    swarm.network.send(swarm.cores["b"].node_id, swarm.cores["a"].node_id, head + encoded)
    swarm.run(60)
    assert swarm.health("a", "c") is Health.LEFT
    assert swarm.count(MemberDied) == 0
    assert swarm.count(MemberLeft) == 2


def test_one_who_starts_anew_at_once_replaces_its_old_self() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    swarm.kill("c")
    swarm.run(0.1)
    swarm.start("c")
    swarm.join("c", "b")
    swarm.run(1)
    assert swarm.agrees()
    for name in "ab":
        assert len(swarm.cores[name].members()) == 2
        assert swarm.story_of(name, since=5) == [MemberDied, MemberJoined]
    swarm.run(30)
    assert swarm.count(MemberDied) == 2


def test_one_whose_clock_went_back_returns_all_the_same() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    swarm.leave("c")
    swarm.run(1)
    swarm.kill("c")
    swarm.start("c", boot_epoch=0)
    swarm.join("c", "a")
    swarm.run(5)
    assert swarm.agrees()
    assert swarm.cores["c"].record.boot_epoch == 2


def test_a_partition_is_noticed_and_its_healing_too() -> None:
    swarm = Swarm()
    swarm.grow(*"abcdef")
    swarm.partition(["a", "b", "c"], ["d", "e", "f"])
    swarm.run(20)
    assert {swarm.health("a", name) for name in "def"} == {Health.DEAD}
    assert {swarm.health("e", name) for name in "abc"} == {Health.DEAD}
    swarm.network.heal()
    assert swarm.network.run_until(swarm.agrees, 30)


def test_a_healed_partition_older_than_memory_needs_a_new_join() -> None:
    swarm = Swarm(config=replace(simulation(), dead_retention=20))
    swarm.grow("a", "b")
    swarm.partition(["a"], ["b"])
    swarm.run(60)
    assert swarm.cores["a"].members() == []
    swarm.network.heal()
    swarm.join("a", "b")
    swarm.run(5)
    assert swarm.agrees()


def test_a_changed_ad_reaches_everyone() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    core = swarm.cores["c"]
    swarm.network.call(core.node_id, lambda now: core.update_ad(b"new", now))
    swarm.run(1)
    assert swarm.count(MemberUpdated) == 4
    member = next(m for m in swarm.cores["a"].members() if m.record.node_id == core.node_id)
    assert member.record.ad == b"new"


def test_changes_in_quick_succession_are_told_together() -> None:
    swarm = Swarm()
    swarm.grow(*"abc")
    core = swarm.cores["c"]
    for step in range(50):
        swarm.network.call(core.node_id, partial(core.update_ad, str(step).encode()))
        swarm.run(0.02)
    swarm.run(2)
    assert [event.record.ad for _, event in swarm.events("a", MemberUpdated)][-1] == b"49"
    assert len(swarm.events("a", MemberUpdated)) <= 3


def test_thirty_nodes_that_join_in_a_chain_at_once_come_to_agree() -> None:
    swarm = Swarm()
    names = [f"n{i}" for i in range(30)]
    for name in names:
        swarm.start(name)
    for one, other in zip(names[1:], names, strict=False):
        swarm.join(one, other)
    assert swarm.network.run_until(swarm.agrees, 10)
    swarm.run(10)
    assert swarm.agrees()
    assert swarm.count(MemberSuspected) == 0


def test_thirty_nodes_all_learn_of_a_death_through_loss() -> None:
    swarm = Swarm(link=replace(LAN, loss=Bernoulli(0.05)))
    names = [f"n{i}" for i in range(30)]
    swarm.grow(*names)
    killed = swarm.network.now
    swarm.kill("n7")
    assert swarm.network.run_until(lambda: swarm.count(MemberDied) == 29, 10)
    assert swarm.network.now - killed < 5
    assert swarm.agrees()


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_dies_of_loss_alone(seed: int) -> None:
    swarm = Swarm(seed, link=replace(LAN, loss=Bernoulli(0.1)))
    swarm.grow(*"abcde")
    swarm.run(240)
    assert swarm.count(MemberDied) == 0
    assert swarm.agrees()


@pytest.mark.parametrize(("count", "limit"), [(3, 1_500), (100, 5_000)])
def test_an_idle_swarm_says_little(count: int, limit: int) -> None:
    swarm = Swarm()
    swarm.grow(*(f"n{i}" for i in range(count)), settle=20)
    before = swarm.network.statistics().bytes_sent
    seconds = 60 if count < 10 else 10
    swarm.run(seconds)
    after = swarm.network.statistics().bytes_sent
    rates = [(after[node] - before[node]) / seconds for node in after]
    print(f"{count} idle nodes: {max(rates):.0f} bytes a second at most from one of them")
    assert max(rates) < limit
    assert swarm.agrees()


@pytest.mark.skipif(CORES.is_compiled, reason="replaces a method of an instance")
def test_an_idle_node_of_three_wakes_up_seldom() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c", settle=30)
    core = swarm.cores["a"]
    wakes = 0

    def count_timeout(now: float) -> None:
        nonlocal wakes
        wakes += 1
        type(core).handle_timeout(core, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "handle_timeout", count_timeout)
        before = swarm.network.statistics()
        swarm.run(60)
    received = (swarm.network.statistics().delivered - before.delivered) / 3
    print(f"idle node of 3: {wakes / 60:.1f} timers and {received / 60:.1f} datagrams a second")
    assert wakes + received < 60 * 12


def test_one_who_slept_through_a_suspicion_hears_the_refutation_first() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    a, c = swarm.cores["a"], swarm.cores["c"]
    swarm.network.stall(c.node_id, 0.7)
    assert swarm.network.run_until(lambda: swarm.health("a", "c") is Health.SUSPECT, 1)
    swarm.network.detach(a.node_id)  # asleep, and its timers run late
    swarm.run(2)
    a.handle_timeout(swarm.network.now)
    assert swarm.health("a", "c") is Health.SUSPECT
    swarm.network.attach(a.node_id, a)
    swarm.run(1)
    assert swarm.health("a", "c") is Health.ALIVE


def test_the_same_seed_tells_the_same_story() -> None:
    hashes = []
    for _ in range(2):
        swarm = Swarm(seed=5, link=replace(LAN, loss=Bernoulli(0.2)))
        swarm.grow(*"abcd")
        swarm.kill("b")
        swarm.run(20)
        hashes.append(swarm.network.trace_hash())
    assert hashes[0] == hashes[1]


def test_round_trips_between_any_two_can_be_estimated() -> None:
    swarm = Swarm(link=replace(LAN, latency=(0.0199, 0.0201)))
    swarm.grow(*"abcd", settle=60)
    b, c = swarm.ids(["b", "c"])
    one, other = swarm.cores["a"].place_of(b), swarm.cores["a"].place_of(c)
    assert one is not None
    assert other is not None
    assert one.distance(other) == pytest.approx(0.040, rel=0.25)

"""What the table holds, and what it costs, when more is told than there is room for."""

from collections.abc import ItemsView, Iterator, ValuesView
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from p2pnode.membership import Health, MemberDied, MembershipConfig, MemberSuspected, simulation
from p2pnode.membership.limits import Buckets, Limits, Rate, TokenBucket
from p2pnode.membership.members import Entry, Members
from p2pnode.membership.messages import Digest, Gossip, Packet, Records, encode_packet
from p2pnode.membership.records import Record, SignedRecord, sign_record
from p2pnode.sansio import NodeId
from p2pnode.testing.links import Link
from p2pnode.testing.membership import TAG, Swarm, ToySigner


def signed(name: str, boot_epoch: int = 0, incarnation: int = 0) -> SignedRecord:
    signer = ToySigner(name)
    record = Record(signer.node_id, incarnation, boot_epoch, (("192.0.2.9", 9),), b"")
    return sign_record(record, signer, TAG)


def tell(swarm: Swarm, source: str, to: str, *records: SignedRecord, sync: bool = False) -> None:
    message = Records() if sync else Gossip()
    packet = Packet(swarm.cores[source].record.version, None, message, records)
    one, other = swarm.ids([source, to])
    swarm.network.send(one, other, encode_packet(packet))


def known(swarm: Swarm, viewer: str, names: list[str]) -> int:
    held = {member.record.node_id for member in swarm.cores[viewer].members()}
    return len(held & set(swarm.ids(names)))


# A full table


def test_strangers_to_full_tables_are_answered_once() -> None:
    config = replace(simulation(), max_members=1)
    swarm = Swarm(1, Link(latency=(0.001, 0.001), mtu=65_000), config)
    swarm.grow("a", "b", "c", settle=2)
    sent = swarm.network.statistics().sent
    swarm.run(10)
    assert swarm.network.statistics().sent - sent < 10 * 30
    counters = sum(
        (core.counters for core in swarm.cores.values()), start=type(swarm.cores["a"].counters)()
    )
    assert counters["message of one the table has no room for"] > 0


def test_who_connects_again_and_again_is_not_told_the_table_each_time() -> None:
    swarm = Swarm(1)
    swarm.grow("a", "b", "c", settle=5)
    a, b = swarm.cores["a"], swarm.cores["b"].node_id
    a.datagrams_to_send()
    for _ in range(100):
        a.join(b, swarm.network.now)
    limit = Limits().joins_per_peer
    assert len([one for one in a.datagrams_to_send() if one.bulk]) <= limit.burst
    assert a.counters["push/pull put off: it connects again and again"] >= 96
    due = a.next_timeout()
    assert due is not None  # the next push/pull comes, and soon
    assert due <= swarm.network.now + 1.2 * simulation().sync_interval_first


def test_what_a_full_table_sends_is_linear_in_what_arrives() -> None:
    config = replace(simulation(), max_members=2)
    swarm = Swarm(1, config=config)
    swarm.grow("a", "b", "c")
    a = swarm.cores["a"]
    a.datagrams_to_send()
    for number in range(200):
        stranger = ToySigner(f"stranger {number}").node_id
        everything = Digest(True, 0, (1 << 64) - 1, ())
        data = encode_packet(Packet(signed("x").record.version, None, everything))
        a.receive_datagram(data, stranger, swarm.network.now)
    assert len(a.datagrams_to_send()) <= 2 * 200


def test_one_who_speaks_takes_the_place_of_one_only_told_of() -> None:
    config = replace(simulation(), max_members=6)
    swarm = Swarm(config=config)
    swarm.grow("a", "b", "c")
    invented = [f"invented {number}" for number in range(20)]
    tell(swarm, "b", "a", *(signed(name) for name in invented))
    swarm.run(0.1)
    assert known(swarm, "a", invented) == 4
    swarm.start("d")
    swarm.join("d", "a")
    swarm.run(1)
    assert swarm.health("a", "d") is Health.ALIVE
    assert {swarm.health("a", name) for name in "bc"} == {Health.ALIVE}
    reasons = [event.reason for _, event in swarm.events("a", MemberDied)]
    assert set(reasons) == {"gave way to another in a full table"}


def test_one_only_told_of_never_takes_the_place_of_one_who_spoke() -> None:
    swarm = Swarm(config=replace(simulation(), max_members=2))
    swarm.grow("a", "b", "c")
    tell(swarm, "b", "a", *(signed(f"invented {number}") for number in range(20)))
    swarm.run(0.1)
    assert known(swarm, "a", ["b", "c"]) == 2


def test_introducers_share_a_full_table_alike() -> None:
    swarm = Swarm(config=replace(simulation(), max_members=12))
    swarm.grow("a", "b", "c")
    first = [f"of b {number}" for number in range(20)]
    second = [f"of c {number}" for number in range(20)]
    tell(swarm, "b", "a", *(signed(name) for name in first))
    swarm.run(0.02)
    assert known(swarm, "a", first) == 10
    tell(swarm, "c", "a", *(signed(name) for name in second))
    swarm.run(0.02)
    assert known(swarm, "a", first) == known(swarm, "a", second) == 5


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 3), st.booleans()), min_size=1, max_size=60
    )
)
def test_nobody_who_spoke_gives_way_while_alive(story: list[tuple[int, int, bool]]) -> None:
    members = Members(max_members=4)
    spoke: set[NodeId] = set()
    for moment, (who, by, directly) in enumerate(story):
        record = signed(str(who))
        source = record.record.node_id if directly else ToySigner(f"source {by}").node_id
        if members.is_news(record.record, source):
            events = members.accept(record, float(moment), source)
            gone = [event.node_id for event in events if isinstance(event, MemberDied)]
            assert not spoke & set(gone)
        if directly and record.record.node_id in members:
            members.hear(record.record.node_id)
            spoke.add(record.record.node_id)
        assert len(members) <= 4


# Floods of records


def test_a_source_brings_so_many_records_a_second() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    ghosts = [f"ghost {number}" for number in range(1020)]
    for start in range(0, 1020, 34):
        tell(swarm, "b", "a", *(signed(name) for name in ghosts[start : start + 34]))
        swarm.run(0.02)
    rate = swarm.config.limits.records_per_source
    assert known(swarm, "a", ghosts) <= rate.burst + rate.per_second
    beyond = swarm.cores["a"].counters["record of another beyond its source's limit"]
    assert beyond + known(swarm, "a", ghosts) == 1020


def test_rebirths_of_invented_members_are_limited() -> None:
    swarm = Swarm()
    swarm.grow("a", "b", "c")
    ghosts = [f"ghost {number}" for number in range(34)]
    for life in range(50):
        tell(swarm, "b", "a", *(signed(name, boot_epoch=life + 1) for name in ghosts))
        swarm.run(0.2)
    started_anew = [e for _, e in swarm.events("a", MemberDied) if e.reason == "started anew"]
    rate = swarm.config.limits.rebirths_per_source
    assert len(started_anew) <= rate.burst + 11 * rate.per_second


def test_the_signature_checks_of_a_second_are_bounded() -> None:
    limits = Limits(verifications=Rate(20, 1))
    swarm = Swarm(config=MembershipConfig(limits=limits))
    swarm.grow("a", "b", "c", "d")
    swarm.run(30)
    for source in "bcd":
        tell(swarm, source, "a", *(signed(f"of {source} {number}") for number in range(30)))
    swarm.run(0.02)
    assert len(swarm.cores["a"].members()) == 3 + 20
    assert swarm.cores["a"].counters["news beyond the signature checks of a second"] == 70


def test_what_was_dropped_comes_again_by_push_pull() -> None:
    limits = Limits(records_per_source=Rate(10, 10))
    swarm = Swarm(config=replace(simulation(), limits=limits))
    swarm.grow(*(f"n{number}" for number in range(12)))
    wanted = [f"silent {number}" for number in range(60)]
    source = swarm.cores["n1"]
    for name in wanted:
        source._events += source._members.accept(signed(name), swarm.network.now)
    swarm.run(0.01)
    swarm.start("new")
    swarm.join("new", "n1")
    swarm.run(0.05)
    assert known(swarm, "new", [f"n{number}" for number in range(12)] + wanted) <= 12
    assert swarm.network.run_until(
        lambda: known(swarm, "new", [f"n{number}" for number in range(12)]) == 12, 10
    )


def test_a_thousand_members_are_learnt_from_one_in_seconds() -> None:
    swarm = Swarm(config=replace(simulation(), probe_interval=60.0, sync_interval=2.0))
    swarm.grow("a", "b")
    names = [f"member {number}" for number in range(1000)]
    b = swarm.cores["b"]
    for name in names:
        b._members.accept(signed(name), swarm.network.now)
    began = swarm.network.now
    a_id, b_id = swarm.ids(["a", "b"])
    while known(swarm, "a", names) < 1000 and swarm.network.now - began < 60:
        swarm.network.call(a_id, lambda now: swarm.cores["a"].join(b_id, now))
        swarm.run(1.0)
    print(f"1,000 members learnt from one other in {swarm.network.now - began:.0f} s")
    assert swarm.network.now - began <= 10


def test_a_crowd_does_not_slow_a_message_down() -> None:
    """Walks over the table are counted: there are none, but for a push/pull once in a while."""
    swarm = Swarm()
    swarm.grow("a", "b", settle=40)  # so that the next push/pull is far off
    a = swarm.cores["a"]
    for number in range(900):
        a._members.accept(signed(f"m{number}"), swarm.network.now)
    walked = Walked(a._members._entries)
    a._members._entries = walked
    tell(swarm, "b", "a", *(signed(f"n{number}") for number in range(3)))
    swarm.run(3)
    assert swarm.count(MemberSuspected) >= 3
    assert swarm.health("a", "b") is Health.ALIVE
    assert walked.looked_at == 0
    assert [*a._members] != []
    assert walked.looked_at > 900


class Walked(dict[NodeId, Entry]):
    """Counts what is looked at by walking over it."""

    looked_at = 0

    def __iter__(self) -> Iterator[NodeId]:
        self.looked_at += len(self)
        return super().__iter__()

    def values(self) -> ValuesView[Entry]:  # type: ignore[override]
        self.looked_at += len(self)
        return super().values()

    def items(self) -> ItemsView[NodeId, Entry]:  # type: ignore[override]
        self.looked_at += len(self)
        return super().items()


# Buckets


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(story: list[tuple[float, bool]]) -> None:
    bucket, now, taken = TokenBucket(Rate(3, 2)), 100.0, 0
    for pause, patient in story:
        now += bucket.wait(now) if patient else pause
        if patient:
            assert bucket.has(now)
        taken += bucket.take(now)
        assert taken <= 3 + 2 * (now - 100.0) + 1e-6


def test_buckets_are_bounded_and_keep_the_latest() -> None:
    buckets = Buckets[int](Rate(1, 0.001), room=3)
    for key in range(3):
        assert buckets.of(key).take(0.0)
    assert not buckets.of(0).take(0.0)
    buckets.of(3)
    assert len(buckets) == 3
    assert not buckets.of(0).take(0.0)  # 1 was let go, used longest ago


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(Exception, match="renewals"):
        Limits(renewals=Rate(0, 1))


# Among invented members


def test_invented_members_do_not_hide_a_death() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    for name in "abcd":
        for start in range(0, 300, 30):
            invented = [signed(f"invented {number}") for number in range(start, start + 30)]
            tell(swarm, "e", name, *invented)
            swarm.run(0.01)
    died = swarm.network.now
    swarm.kill("b")
    bound = 2 * swarm.config.detection_bound(5)
    assert swarm.network.run_until(
        lambda: all(swarm.health(name, "b") is Health.DEAD for name in "acd"), bound
    )
    print(f"dead at all after {swarm.network.now - died:.1f} s among 300 invented members")


def test_news_reaches_everyone_among_invented_members() -> None:
    swarm = Swarm()
    swarm.grow(*(f"n{number}" for number in range(12)))
    for name in swarm.cores:
        for start in range(0, 300, 30):
            invented = [signed(f"invented {number}") for number in range(start, start + 30)]
            tell(swarm, "n11", name, *invented)
            swarm.run(0.01)
    core = swarm.cores["n3"]
    swarm.network.call(core.node_id, lambda now: core.update_ad(b"new", now))
    began = swarm.network.now

    def is_known() -> bool:
        views = [other.member(core.node_id) for other in swarm.cores.values() if other is not core]
        return all(view is not None and view.record.ad == b"new" for view in views)

    assert swarm.network.run_until(is_known, 5)
    print(f"told to all in {swarm.network.now - began:.1f} s")

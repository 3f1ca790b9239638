"""An accusation alone kills nobody, however often, by however many, however well signed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from p2pnode.membership import (
    Health,
    MemberDied,
    MemberRefuted,
    MembershipConfig,
    MemberSuspected,
    simulation,
)
from p2pnode.membership.claimants import Claimants
from p2pnode.membership.limits import Limits, Rate
from p2pnode.membership.members import prefix_of
from p2pnode.membership.messages import (
    Digest,
    DigestEntry,
    Gossip,
    Message,
    Packet,
    encode_packet,
)
from p2pnode.membership.records import (
    Accusation,
    Claim,
    News,
    Record,
    SignedClaim,
    Version,
    sign_claim,
    sign_record,
)
from p2pnode.sansio import NodeId
from p2pnode.testing.links import Bernoulli
from p2pnode.testing.membership import LAN, TAG, Swarm, ToySigner

EVIL = ToySigner("e")
SYBILS = [ToySigner(f"sybil {number}") for number in range(3)]


def say(swarm: Swarm, to: str, *news: News, message: Message | None = None) -> None:
    """Let ``e``, which is a member, send what it likes to one node."""
    version = swarm.cores["e"].record.version
    data = encode_packet(Packet(version, None, message or Gossip(), news))
    swarm.network.send(EVIL.node_id, swarm.cores[to].node_id, data)


def claim(swarm: Swarm, subject: str, what: Accusation, signer: ToySigner = EVIL) -> SignedClaim:
    core = swarm.cores[subject]
    return sign_claim(Claim(what, signer.node_id, core.node_id, core.record.version), signer, TAG)


def every(swarm: Swarm, interval: float, seconds: float, act: Callable[[], None]) -> None:
    for _ in range(round(seconds / interval)):
        act()
        swarm.run(interval)


def introduce_sybils(swarm: Swarm) -> None:
    records = [sign_record(Record(s.node_id, 0, 1, (), b""), s, TAG) for s in SYBILS]
    for name in swarm.cores:
        say(swarm, name, *records)
    swarm.run(0.5)


def deaths_of(swarm: Swarm, *names: str) -> int:
    living = set(swarm.ids(list(names)))
    return sum(
        isinstance(event, MemberDied) and event.node_id in living
        for _, _, event in swarm.network.story
    )


@pytest.mark.parametrize("what", [(Accusation.SUSPECT,), (Accusation.DEAD,), tuple(Accusation)])
@pytest.mark.parametrize("rate", [5, 100])
def test_nobody_who_answers_is_dead_by_words(what: tuple[Accusation, ...], rate: int) -> None:
    swarm = Swarm(seed=rate)
    swarm.grow(*"abcde")
    introduce_sybils(swarm)

    def accuse() -> None:
        claims = [claim(swarm, "b", how, s) for how in what for s in (EVIL, *SYBILS)]
        for to in "ac":
            say(swarm, to, *claims)

    every(swarm, 1 / rate, 20, accuse)
    assert deaths_of(swarm, *"abcde") == 0
    assert swarm.health("a", "b") is Health.ALIVE
    assert swarm.cores["b"].record.incarnation <= 12
    assert swarm.cores["a"].counters["claim of a member that accused falsely"] > 0


def test_keys_that_nobody_met_are_one_word() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    introduce_sybils(swarm)
    c = swarm.cores["c"]
    swarm.network.stall(c.node_id, 1)
    for sybil in SYBILS:
        say(swarm, "a", claim(swarm, "c", Accusation.SUSPECT, sybil))
    swarm.run(0.02)
    assert swarm.health("a", "c") is Health.SUSPECT
    suspicion = swarm.cores["a"]._claims._suspicions[c.node_id]
    assert suspicion.accuser == EVIL.node_id
    assert suspicion.deadline - swarm.network.now > 3
    assert swarm.cores["a"].counters["claim of a member we never heard"] == 1
    swarm.run(0.15)
    assert swarm.health("b", "c") is Health.ALIVE  # nor are they passed on


def test_a_member_told_of_accusations_signs_few_new_versions() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    introduce_sybils(swarm)
    signers = (EVIL, *SYBILS)
    every(
        swarm,
        0.01,
        20,
        lambda: say(swarm, "b", *(claim(swarm, "b", Accusation.DEAD, s) for s in signers)),
    )
    limits = swarm.config.limits
    assert swarm.cores["b"].record.incarnation <= limits.renewals.burst + 21
    assert swarm.cores["b"].counters["accused beyond the rate of refutations"] > 0
    assert deaths_of(swarm, *"abcde") == 0


def test_digests_that_call_us_dead_make_us_sign_little() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    b = swarm.cores["b"]

    def call_dead() -> None:
        prefix = prefix_of(b.node_id)
        entry = DigestEntry(prefix, b.record.version, Health.DEAD)
        say(swarm, "b", message=Digest(False, prefix, prefix, (entry,)))

    every(swarm, 0.002, 10, call_dead)
    assert b.record.incarnation <= 5
    beyond = (
        "digest beyond its sender's limit",
        "accused by digests beyond the rate of refutations",
    )
    assert sum(b.counters[why] for why in beyond) > 4900


def test_digests_that_call_everybody_dead_begin_no_suspicion() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde", "f", "g")
    before = swarm.count(MemberSuspected)
    statistics = swarm.network.statistics()

    def call_dead() -> None:
        entries = tuple(
            DigestEntry(prefix_of(core.node_id), core.record.version, Health.DEAD)
            for name, core in swarm.cores.items()
            if name not in "ae"
        )
        say(swarm, "a", message=Digest(False, 0, (1 << 64) - 1, entries))

    every(swarm, 0.002, 5, call_dead)
    assert swarm.count(MemberSuspected) == before
    assert swarm.agrees()
    (a,) = swarm.ids(["a"])
    assert swarm.network.statistics().bytes_sent[a] - statistics.bytes_sent[a] < 150_000


def test_one_whose_session_answers_is_not_declared_dead() -> None:
    heard: set[NodeId] = set()
    swarm = Swarm(is_heard=lambda peer, now: peer in heard)
    swarm.grow(*"abc")
    (c,) = swarm.ids(["c"])
    heard.add(c)  # though no ping of the others gets through
    swarm.partition(["a", "b"], ["c"])
    swarm.run(30)
    assert swarm.count(MemberSuspected) > 0
    assert deaths_of(swarm, "c") == 0
    assert swarm.cores["a"].counters["suspicion dropped: its session answers"] > 0
    heard.clear()
    swarm.run(2)
    assert swarm.health("a", "c") is Health.DEAD


def test_a_session_that_answers_again_ends_a_suspicion() -> None:
    swarm = Swarm()
    swarm.grow(*"abc")
    a, c = swarm.cores["a"], swarm.cores["c"]
    swarm.network.stall(c.node_id, 5)
    assert swarm.network.run_until(lambda: swarm.health("a", "c") is Health.SUSPECT, 2)
    swarm.network.call(a.node_id, lambda now: a.report_responsive(c.node_id, now))
    assert swarm.health("a", "c") is Health.ALIVE


def test_a_death_spreads_by_words_that_each_checks() -> None:
    swarm = Swarm()
    names = [f"n{number}" for number in range(30)]
    swarm.grow(*names)
    died = swarm.network.now
    swarm.kill("n7")
    assert swarm.network.run_until(lambda: swarm.count(MemberDied) == 29, 10)
    moments = sorted(at - died for at, _, event in swarm.network.story if type(event) is MemberDied)
    print(f"dead at the first after {moments[0]:.2f} s, at the last after {moments[-1]:.2f} s")
    assert moments[-1] - moments[0] < 1.2


def test_one_that_dies_among_liars_is_found_out_by_our_own_probes() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")

    def accuse() -> None:
        say(swarm, "a", *(claim(swarm, name, Accusation.SUSPECT) for name in "bd"))

    every(swarm, 0.1, 10, accuse)
    died = swarm.network.now
    swarm.kill("c")
    wanted = swarm.config.detection_bound(5)
    assert swarm.network.run_until(lambda: swarm.health("a", "c") is Health.DEAD, wanted)
    print(f"found after {swarm.network.now - died:.2f} s")
    assert deaths_of(swarm, *"abde") == 0


def test_nobody_dies_in_a_minute_of_loss_among_thirty() -> None:
    swarm = Swarm(seed=3, link=replace(LAN, loss=Bernoulli(0.05)))
    swarm.grow(*(f"n{number}" for number in range(30)))
    swarm.run(60)
    assert swarm.count(MemberDied) == 0
    assert swarm.agrees()


def test_hostile_words_tell_the_same_story_twice() -> None:
    hashes = []
    for _ in range(2):
        swarm = Swarm(seed=9, link=replace(LAN, loss=Bernoulli(0.1)))
        swarm.grow(*"abcde")
        introduce_sybils(swarm)

        def accuse(swarm: Swarm = swarm) -> None:
            for name in "abcd":
                say(swarm, name, *(claim(swarm, n, Accusation.DEAD) for n in "abcd"))

        every(swarm, 0.05, 10, accuse)
        hashes.append(swarm.network.trace_hash())
    assert hashes[0] == hashes[1]


def test_a_claimant_that_is_often_wrong_counts_less_and_is_forgiven() -> None:
    swarm = Swarm()
    swarm.grow("a", "b")
    (b,) = swarm.ids(["b"])
    a = swarm.cores["a"]
    claimants = Claimants(swarm.config, a._members, lambda peer, now: False, a.counters)
    claimants.accused_falsely(b, 0.0)
    claimants.accused_falsely(b, 0.0)
    assert claimants.counts(b, 0.0)
    claimants.accused_falsely(b, 0.0)
    assert not claimants.counts(b, 29.9)
    assert claimants.counts(b, 30.1)
    claimants.accused_falsely(b, 31.0)
    assert not claimants.counts(b, 31.0 + 45)  # longer each time
    assert claimants.counts(b, 31.0 + 60)
    claimants.accused_falsely(b, 3000.0)  # the rest is long ago
    assert claimants.counts(b, 3000.0)


def test_a_claimant_accuses_so_many_at_once() -> None:
    config = replace(simulation(), max_accused_at_once=2)
    swarm = Swarm(config=config)
    swarm.grow(*"abcdefg")
    for name in "bcdfg":  # none of them answers a's probes
        swarm.network.partition([ToySigner("a").node_id], [ToySigner(name).node_id])
    say(swarm, "a", *(claim(swarm, name, Accusation.SUSPECT) for name in "bcdfg"))
    swarm.run(0.02)
    suspects = [name for name in "bcdfg" if swarm.health("a", name) is Health.SUSPECT]
    assert len(suspects) == 2


def test_claims_beyond_a_claimants_rate_are_counted_and_not_checked() -> None:
    limits = Limits(claims_per_claimant=Rate(2, 0.001))
    swarm = Swarm(config=MembershipConfig(limits=limits))
    swarm.grow(*"abcdef")
    say(swarm, "a", *(claim(swarm, name, Accusation.SUSPECT) for name in "bcd"))
    swarm.run(0.02)
    say(swarm, "a", claim(swarm, "f", Accusation.SUSPECT))
    swarm.run(0.02)
    assert swarm.cores["a"].counters["claim beyond its claimant's limit"] >= 1
    assert swarm.health("a", "f") is Health.ALIVE


def test_claims_forged_in_anothers_name_do_not_use_up_its_rate() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    (b,) = swarm.ids(["b"])
    c = swarm.cores["c"]
    forged = sign_claim(Claim(Accusation.DEAD, b, c.node_id, c.record.version), EVIL, TAG)
    every(swarm, 0.002, 1, lambda: say(swarm, "a", forged))
    true = claim(swarm, "c", Accusation.SUSPECT, ToySigner("b"))
    swarm.network.stall(c.node_id, 1)
    head = swarm.replay_head("b")
    swarm.network.send(b, swarm.cores["a"].node_id, head + true.encoded)
    swarm.run(0.02)
    assert swarm.health("a", "c") is Health.SUSPECT


def test_versions_at_the_end_of_their_range_raise_nothing() -> None:
    swarm = Swarm()
    swarm.grow("a", "b")
    last = Version((1 << 64) - 1, (1 << 32) - 1)
    signer = ToySigner("a")
    for version in (Version(1 << 48, 0), Version(last.boot_epoch, 5), last):
        former = Record(signer.node_id, version.incarnation, version.boot_epoch, (), b"")
        news = (sign_record(former, signer, TAG),)
        data = encode_packet(Packet(Version(1, 0), None, Gossip(), news))
        swarm.network.send(ToySigner("b").node_id, signer.node_id, data)
        swarm.run(3)
    assert swarm.cores["a"].record.version == Version(last.boot_epoch, 6)
    assert swarm.network.statistics().malformed == 0
    swarm.leave("a")
    swarm.run(1)


def test_a_suspect_that_answers_is_refuted_here_before_its_refutation() -> None:
    swarm = Swarm()
    swarm.grow(*"abcde")
    say(swarm, "a", claim(swarm, "b", Accusation.DEAD))
    swarm.run(1)
    a = swarm.cores["a"].node_id
    kinds = [type(event) for at, node, event in swarm.network.story if node == a and at > 5]
    assert kinds == [MemberSuspected, MemberRefuted]

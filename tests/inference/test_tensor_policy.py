"""The coding of an edge: as fine as the link carries, within the budget, and calm."""

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, strategies as st

from p2pnode.errors import ConfigError, LocalProtocolError
from p2pnode.inference.tensor_policy import (
    CALIBRATED_SHARE,
    SHARE_OF_F16,
    STEP,
    Coded,
    EdgeKey,
    EdgeState,
    Evidence,
    Link,
    PolicyConfig,
    TensorPolicy,
    neighbour,
    weigh,
)
from p2pnode.inference.terms import (
    ACTIVATIONS,
    AUTO,
    LADDER,
    PLAIN,
    Terms,
    nearest,
    rungs_of_mask,
    wanted,
)
from p2pnode.sansio import NodeId
from p2pnode.testing.frames import node_id
from p2pnode.wire.states import Rung

PEER = node_id("far")
EDGE = EdgeKey(PEER, 10, block=True)
CONFIG = PolicyConfig()
ROW = 1152  # bytes of a row in f16
COST = {Rung.F16: 0.0, Rung.I8: 0.0001, Rung.Q4: 0.009, Rung.Q2: 0.15}  # compression.md, a cut
CALIBRATED_COST = {
    Rung.F16: 0.0,
    Rung.I8: 0.00016,
    Rung.Q5: 0.0015,
    Rung.Q4: 0.0065,
    Rung.Q3: 0.0185,
    Rung.Q2: 0.05,
}  # docs/decisions/0008, two cuts

grants = st.sets(st.sampled_from(LADDER)).map(lambda rungs: frozenset({Rung.F16, *rungs}))
CODED = tuple(mode for mode in ACTIVATIONS if mode != Rung.F32)  # f32 has no terms
terms_of = st.builds(Terms, st.sampled_from(CODED), grants, st.floats(0, 1))
links = st.builds(
    Link,
    goodput=st.none() | st.floats(1e3, 1e9),
    delay=st.none() | st.floats(0, 1),
)


def auto(kl: float = 1.0, *, rungs: frozenset[Rung] = frozenset(LADDER)) -> Terms:
    return Terms(AUTO, rungs, kl)


@dataclass
class Way:
    """A link whose truth a test may change."""

    now: Link

    def link(self, peer: NodeId) -> Link:
        return self.now


@dataclass
class Sender:
    """Sends batch after batch over one edge, as a stage does: tries, measures, reports."""

    way: Way
    terms: Terms
    compute_s: float = 0.0
    rows: int = 64
    calibrated: bool = False

    def __post_init__(self) -> None:
        self.policy = TensorPolicy(CONFIG, self.way)

    def send(self, batches: int = 1) -> list[Rung]:
        return [self._send() for _ in range(batches)]

    def _send(self) -> Rung:
        tries = self.policy.choose(EDGE, self.terms, self.rows, ROW, calibrated=self.calibrated)
        cost = CALIBRATED_COST if self.calibrated else COST
        share = CALIBRATED_SHARE if self.calibrated else SHARE_OF_F16
        fits = [rung for rung in tries if cost[rung] <= self.terms.kl]
        used = (fits or [tries[-1]])[0]
        failed = tries[: tries.index(used)]
        saved = round((1 - share[used]) * self.rows * ROW)
        coded = Coded(used, cost[used], saved, failed)
        self.policy.sent(EDGE, self.terms, coded, self.compute_s, self.rows)
        return used

    @property
    def state(self) -> EdgeState:
        return self.policy.edges()[EDGE]


def slow(factor: float = 1.0, delay: float = 0.005) -> Link:
    """A link on which 64 rows of f16 take ``factor`` seconds."""
    return Link(goodput=64 * ROW / factor, delay=delay)


FAST = Link(goodput=1e8, delay=0.0002)


# What is never done, whatever comes


@given(
    st.lists(
        st.tuples(terms_of, links, st.floats(0, 1), st.integers(1, 512), st.booleans()),
        max_size=60,
    )
)
def test_no_coding_is_tried_that_the_terms_do_not_allow(
    story: list[tuple[Terms, Link, float, int, bool]],
) -> None:
    way = Way(Link())
    policy = TensorPolicy(CONFIG, way)
    for terms, link, seconds, rows, calibrated in story:
        way.now = link
        tries = policy.choose(EDGE, terms, rows, ROW, calibrated=calibrated)
        assert set(tries) <= terms.rungs
        assert calibrated or set(tries) <= PLAIN
        assert list(tries) == sorted(tries, key=LADDER.index, reverse=True)
        if terms.pinned is None:
            assert tries[-1] is Rung.F16  # so that a batch can always be sent within the budget
        policy.sent(EDGE, terms, Coded(tries[-1], failed=tries[:-1]), seconds, rows)


@given(grants, st.sampled_from(sorted(PLAIN)), st.lists(links, max_size=30))
def test_a_pinned_coding_stays(rungs: frozenset[Rung], rung: Rung, weather: list[Link]) -> None:
    terms = Terms(str(rung), rungs, 0.0)
    way = Way(Link())
    policy = TensorPolicy(CONFIG, way)
    for link in weather:
        way.now = link
        (only,) = policy.choose(EDGE, terms, 64, ROW, calibrated=True)
        assert only is nearest(rung, terms)
        assert only is rung or rung not in rungs
        policy.sent(EDGE, terms, Coded(only, 9.0), 0.01, 64)


@given(st.integers(0, 2**32 - 1), st.sampled_from(ACTIVATIONS))
def test_only_what_an_ad_says_is_granted(mask: int, mode: str) -> None:
    granted = rungs_of_mask(mask) & wanted(mode)
    assert Rung.F16 in granted
    bits = {Rung.I8: 1, Rung.Q5: 6, Rung.Q4: 2, Rung.Q3: 6, Rung.Q2: 5}
    assert all(mask >> bits[rung] & 1 for rung in granted if rung is not Rung.F16)


@given(st.floats(0, 0.2), links, st.booleans())
def test_no_batch_costs_more_than_the_budget(kl: float, link: Link, calibrated: bool) -> None:
    sender = Sender(Way(link), auto(kl), calibrated=calibrated)
    cost = CALIBRATED_COST if calibrated else COST
    for rung in sender.send(200):
        assert cost[rung] <= kl


# Calm


@given(links, st.floats(0, 0.5), grants, st.booleans())
def test_a_link_that_does_not_change_is_settled(
    link: Link, compute_s: float, rungs: frozenset[Rung], calibrated: bool
) -> None:
    sender = Sender(Way(link), auto(rungs=rungs), compute_s, calibrated=calibrated)
    sender.send(60)
    assert set(sender.send(300)) == {sender.state.rung}
    assert not sender.state.up


@given(st.floats(0, 0.14), grants)
def test_a_coding_beyond_the_budget_is_tried_ever_more_rarely(
    kl: float, rungs: frozenset[Rung]
) -> None:
    sender = Sender(Way(slow(1.0)), auto(kl, rungs=rungs))
    sender.send(3000)
    assert sender.state.up.total() <= len(LADDER) * 6  # 64 looks, 128, 256 and so on
    assert set(sender.state.up) <= {"its coding cost more of the answer than allowed"}


@given(
    st.sampled_from(LADDER),
    st.floats(1e3, 1e7),
    st.floats(0, 0.1),
    st.floats(0, 0.1),
    grants,
    st.sampled_from([SHARE_OF_F16, CALIBRATED_SHARE]),
)
def test_what_makes_it_go_down_never_makes_it_go_up_again(
    rung: Rung,
    goodput: float,
    delay: float,
    compute_s: float,
    rungs: frozenset[Rung],
    shares: dict[Rung, float],
) -> None:
    terms = auto(rungs=rungs)
    link = Link(goodput, delay)
    size = 64 * ROW
    if weigh(rung, size, compute_s, link, terms, CONFIG, shares) is not Evidence.HEAVY:
        return
    below = neighbour(rung, 1, terms)
    if below is not None and rung in rungs:
        after = weigh(below, size, compute_s, link, terms, CONFIG, shares)
        assert after is not Evidence.ROOM


def test_a_link_that_is_not_the_bottleneck_stays_at_f16() -> None:
    for link in (FAST, Link(1e6, 0.1), Link(), Link(1e3, None)):
        sender = Sender(Way(link), auto(), compute_s=0.05)
        assert set(sender.send(50)) == {Rung.F16}
        assert not sender.state.down


def test_what_takes_no_time_is_never_worth_a_coarser_coding() -> None:
    """A LAN and an engine so fast that the wire is the larger part of next to nothing."""
    sender = Sender(Way(Link(goodput=64 * ROW / 0.0015, delay=0.0)), auto())
    assert set(sender.send(50)) == {Rung.F16}


# Steps


def test_a_slow_link_goes_down_rung_by_rung_and_up_again_when_it_recovers() -> None:
    way = Way(slow(1.0))
    sender = Sender(way, auto())
    down = [rung for rung, _ in itertools.groupby(sender.send(20))]
    assert down == [Rung.F16, Rung.I8, Rung.Q4, Rung.Q2]
    assert sender.state.down == {Evidence.HEAVY.value: 3}
    way.now = FAST
    up = [rung for rung, _ in itertools.groupby(sender.send(60))]
    assert up == [Rung.Q2, Rung.Q4, Rung.I8, Rung.F16]
    assert sender.state.up == {Evidence.ROOM.value: 3}
    assert sender.state.saved > 0


def test_with_a_calibration_there_are_more_steps() -> None:
    way = Way(slow(1.0))
    sender = Sender(way, auto(), calibrated=True)
    down = [rung for rung, _ in itertools.groupby(sender.send(30))]
    assert down == list(LADDER)
    way.now = FAST
    up = [rung for rung, _ in itertools.groupby(sender.send(90))]
    assert up == list(reversed(LADDER))


def test_with_a_calibration_it_comes_closer_to_the_budget() -> None:
    """0.02 nats a cut are Q4 without a calibration, and Q3 with one; 0.003 are I8 and Q5."""
    for kl, plain, calibrated in ((0.02, Rung.Q4, Rung.Q3), (0.003, Rung.I8, Rung.Q5)):
        assert Sender(Way(slow(1.0)), auto(kl)).send(60)[-1] is plain
        assert Sender(Way(slow(1.0)), auto(kl), calibrated=True).send(60)[-1] is calibrated


def test_an_edge_whose_calibration_is_gone_sends_the_next_finer_coding() -> None:
    sender = Sender(Way(slow(1.0)), auto(0.002), calibrated=True)
    assert sender.send(30)[-1] is Rung.Q5
    sender.calibrated = False
    assert sender.send(1) == [Rung.I8]


def test_each_rung_takes_fewer_bytes_than_the_finer_one() -> None:
    for shares in (SHARE_OF_F16, CALIBRATED_SHARE):
        assert list(shares) == list(LADDER)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert all(CALIBRATED_SHARE[rung] <= SHARE_OF_F16[rung] for rung in LADDER)


def test_one_slow_look_is_not_enough() -> None:
    way = Way(FAST)
    sender = Sender(way, auto())
    for _ in range(20):
        way.now = slow(1.0)
        sender.send(CONFIG.patience_down - 1)
        way.now = FAST
        assert sender.send() == [Rung.F16]


def test_a_link_is_as_coarse_as_it_must_be_and_no_coarser() -> None:
    """I8 makes the payload the smaller part, so there it stays."""
    sender = Sender(Way(slow(0.030, delay=0.020)), auto())
    assert set(sender.send(100)[20:]) == {Rung.I8}


def test_the_budget_has_the_last_word() -> None:
    sender = Sender(Way(slow(1.0)), auto(0.02))
    rungs = sender.send(40)
    assert rungs[-1] is Rung.Q4  # Q2 costs 0.15
    assert sender.state.up == {"its coding cost more of the answer than allowed": 1}
    assert rungs.count(Rung.Q2) == 0


def test_a_link_that_is_new_again_is_not_assumed_slow() -> None:
    way = Way(slow(1.0))
    sender = Sender(way, auto())
    assert sender.send(20)[-1] is Rung.Q2
    way.now = Link()
    assert sender.send(60)[-1] is Rung.F16
    assert sender.state.up == {Evidence.UNMEASURED.value: 3}


def test_a_prompt_may_be_too_much_for_a_link_that_carries_tokens() -> None:
    way = Way(slow(1.0, delay=0.050))
    policy = TensorPolicy(CONFIG, way)
    used = {}
    for _ in range(20):
        for block, rows in ((True, 64), (False, 1)):
            edge = EdgeKey(PEER, 10, block)
            used[block] = policy.choose(edge, auto(), rows, ROW)[0]
            policy.sent(edge, auto(), Coded(used[block]), 0.0, rows)
    assert used == {True: Rung.Q2, False: Rung.F16}


def test_a_session_that_allows_less_gets_the_next_finer_coding() -> None:
    sender = Sender(Way(slow(1.0)), auto())
    sender.send(20)
    modest = auto(rungs=frozenset({Rung.F16, Rung.I8}))
    assert sender.policy.choose(EDGE, modest, 64, ROW) == (Rung.I8, Rung.F16)


def test_memory_is_bounded() -> None:
    policy = TensorPolicy(PolicyConfig(edges=4), None)
    for layer in range(100):
        policy.choose(EdgeKey(PEER, layer, block=True), auto(), 1, ROW)
    assert [key.layer for key in policy.edges()] == [96, 97, 98, 99]


def test_every_kind_of_evidence_has_its_step() -> None:
    assert set(STEP) == set(Evidence)


@pytest.mark.parametrize(
    "change",
    [{"heavy": 1.0}, {"room": 2.0}, {"room": 0.0}, {"patience_down": 0}, {"bar": 0}],
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        PolicyConfig(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "rungs", "kl", "calibration"),
    [
        ("q7", frozenset(LADDER), 0.1, 0),
        (AUTO, frozenset({Rung.I8}), 0.1, 0),
        (AUTO, frozenset({Rung.F16, Rung.F32}), 0.1, 0),
        (AUTO, frozenset(LADDER), -1.0, 0),
        (AUTO, frozenset(LADDER), float("nan"), 0),
        (AUTO, frozenset(LADDER), 0.1, 1 << 32),
    ],
)
def test_impossible_terms_are_refused(
    mode: str, rungs: frozenset[Rung], kl: float, calibration: int
) -> None:
    with pytest.raises(LocalProtocolError):
        Terms(mode, rungs, kl, calibration)

"""The weather keeps to its closed form: mean, bursts and gaps."""

from itertools import groupby, pairwise
from random import Random

import pytest

from p2pnode.testing import links
from p2pnode.testing.links import Bernoulli, GilbertElliott, Link, Loss, Path, Trace

DRAWS = 200_000


def drawn(loss: Loss, seed: int = 7, count: int = DRAWS) -> list[bool]:
    lost = loss.start(Random(seed))
    return [lost() for _ in range(count)]


def runs(losses: list[bool], kind: bool) -> list[int]:
    return [len(list(run)) for value, run in groupby(losses) if value is kind]


def mean(values: list[int]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("p", [0.0, 0.01, 0.05, 0.3, 1.0])
def test_bernoulli_loses_its_share(p: float) -> None:
    assert sum(drawn(Bernoulli(p))) / DRAWS == pytest.approx(p, rel=0.05, abs=1e-9)


def test_bernoulli_bursts_are_geometric() -> None:
    loss = Bernoulli(0.3)
    bursts = runs(drawn(loss), kind=True)
    assert mean(bursts) == pytest.approx(loss.mean_burst, rel=0.02)
    for length in (1, 2, 3):
        share = sum(burst == length for burst in bursts) / len(bursts)
        assert share == pytest.approx(0.7 * 0.3 ** (length - 1), rel=0.05)


@pytest.mark.parametrize(
    "loss",
    [
        links.WIFI,
        links.LOSSY_WIFI,
        links.CELLULAR,
        links.SATELLITE,
        links.CONGESTED,
        links.BURSTS_OF_FOUR,
        GilbertElliott(0.3, 0.05),
    ],
)
def test_gilbert_elliott_keeps_to_its_closed_form(loss: GilbertElliott) -> None:
    losses = drawn(loss)
    assert sum(losses) / DRAWS == pytest.approx(loss.mean_loss, rel=0.1)
    assert mean(runs(losses, kind=True)) == pytest.approx(1 / loss.r, rel=0.06)
    assert mean(runs(losses, kind=False)) == pytest.approx(1 / loss.p, rel=0.1)


def test_bursts_of_four_are_what_they_say() -> None:
    assert links.BURSTS_OF_FOUR.mean_loss == pytest.approx(0.1, rel=1e-3)
    assert links.BURSTS_OF_FOUR.mean_burst == 4


def test_partial_losses_in_both_states_add_up() -> None:
    loss = GilbertElliott(0.1, 0.3, good_loss=0.02, bad_loss=0.5)
    assert sum(drawn(loss)) / DRAWS == pytest.approx(loss.mean_loss, rel=0.05)


def test_the_chain_starts_in_its_stationary_distribution() -> None:
    """So that many short runs have the mean of one long one."""
    loss = GilbertElliott(0.05, 0.05)
    firsts = [drawn(loss, seed, count=1)[0] for seed in range(4000)]
    assert sum(firsts) / len(firsts) == pytest.approx(loss.mean_loss, rel=0.05)


def test_a_trace_is_played_over_and_over() -> None:
    pattern = (True, False, False)
    assert drawn(Trace(pattern), count=6) == [*pattern, *pattern]


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: Bernoulli(1.1),
        lambda: GilbertElliott(-0.1, 0.5),
        lambda: GilbertElliott(0, 0),
        lambda: Trace(()),
        lambda: Link(latency=(0.2, 0.1)),
        lambda: Link(rate=0),
        lambda: Link(corrupt=2),
    ],
)
def test_impossible_weather_is_refused(nonsense: object) -> None:
    assert callable(nonsense)
    with pytest.raises(ValueError, match=r"."):
        nonsense()


def arrivals(link: Link, count: int = 1000, *, spacing: float = 0.0) -> list[tuple[float, bytes]]:
    path = Path(link, Random(3))
    arrived: list[tuple[float, bytes]] = []
    for number in range(count):
        arrived += path.carry(number.to_bytes(4, "big") * 300, number * spacing).copies
    return sorted(arrived)


def test_jitter_stays_in_its_bounds_and_keeps_the_order() -> None:
    arrived = arrivals(Link(latency=(0.01, 0.05)), spacing=0.001)
    payloads = [payload for _, payload in arrived]
    assert payloads == sorted(payloads)
    assert all(
        0.01 <= moment - number * 0.001 <= 0.05 for number, (moment, _) in enumerate(arrived)
    )


def test_reordering_holds_back_its_share() -> None:
    link = Link(latency=(0.01, 0.01), reorder=0.1, reorder_by=0.02)
    payloads = [payload for _, payload in arrivals(link, 5000, spacing=0.001)]
    overtaken = sum(later < earlier for earlier, later in pairwise(payloads))
    assert 250 < overtaken < 500  # 10 % are held back, a few of them not long enough to matter


def test_duplicates_and_damage_come_at_their_rates() -> None:
    arrived = arrivals(Link(duplicate=0.2, corrupt=0.1), 5000)
    assert len(arrived) == pytest.approx(6000, rel=0.02)
    whole = {number.to_bytes(4, "big") * 300 for number in range(5000)}
    damaged = [payload for _, payload in arrived if payload not in whole]
    assert len(damaged) == pytest.approx(600, rel=0.15)
    assert all(len(payload) == 1200 for payload in damaged)


def test_the_rate_spaces_datagrams_and_the_queue_has_an_end() -> None:
    size = 1200 + links.IP_UDP_OVERHEAD
    link = Link(latency=(0.0, 0.0), rate=size * 100, queue=size * 10 - 1)
    moments = [moment for moment, _ in arrivals(link, 50)]
    assert moments == pytest.approx([(n + 1) / 100 for n in range(10)])


def test_a_rate_without_a_queue_still_carries_spaced_datagrams() -> None:
    size = 1200 + links.IP_UDP_OVERHEAD
    assert len(arrivals(Link(rate=size * 100, queue=0), 50, spacing=0.011)) == 50


def test_the_mtu_is_that_of_the_ip_packet() -> None:
    path = Path(Link(mtu=1500), Random(0))
    assert path.carry(bytes(1472), 0.0).copies
    assert path.carry(bytes(1473), 0.0).dropped == "mtu"


def test_what_is_lost_has_used_the_bottleneck() -> None:
    size = 1200 + links.IP_UDP_OVERHEAD
    path = Path(Link(loss=Trace((True, False)), latency=(0, 0), rate=size * 10), Random(0))
    assert path.carry(bytes(1200), 0.0).dropped == "loss"
    assert path.carry(bytes(1200), 0.0).copies[0][0] == pytest.approx(0.2)


def test_a_reliable_layer_waits_losses_out() -> None:
    path = Path(Link(loss=Trace((True, True, False)), latency=(0.1, 0.1)), Random(0))
    moment, payload = path.carry_reliably(bytes(100_000), 0.0).copies[0]
    assert moment == pytest.approx(0.7)
    assert len(payload) == 100_000

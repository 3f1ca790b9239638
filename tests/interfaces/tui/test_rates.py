from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from p2pnode.interfaces.tui.example import lonely, minute
from p2pnode.interfaces.tui.rates import History, Sample, growth, per_second, spark, total_at
from p2pnode.node.snapshot import NodeSnapshot, TrafficView

SERIES = ("think", "bytes_in")


def node(at: float, total: int = 0, **counters: int) -> NodeSnapshot:
    traffic = (TrafficView("think", total // 10, 0, total, 0),)
    return replace(lonely(), uptime_s=at, traffic=traffic, counters=counters)


def history(*nodes: NodeSnapshot) -> History:
    remembered = History()
    for each in nodes:
        remembered.add(each)
    return remembered


def test_nothing_is_known_before_the_first_snapshot_and_nothing_flows_after_it() -> None:
    assert not History().rates().kinds
    assert history(node(5, 1000)).rates().kinds["think"].bytes_in == 0


def test_a_steady_flow_has_its_rate_whenever_it_is_polled() -> None:
    moments = [0, 0.5, 1.0, 3.7, 3.8, 9.1, 10]
    flow = history(*(node(at, round(at * 1000)) for at in moments)).rates().kinds["think"]
    assert flow.bytes_in == pytest.approx(1000)
    assert flow.frames_in == pytest.approx(100)
    assert flow.bytes_out == 0


def test_a_stall_shows_within_the_window() -> None:
    rates = history(node(0), node(1, 1000), node(2, 1000), node(4, 1000)).rates()
    assert rates.kinds["think"].bytes_in == 0


def test_a_node_that_began_anew_forgets_the_minute_before() -> None:
    rates = history(node(100, 10**9), node(101, 10**9), node(1, 500)).rates()
    assert rates.kinds["think"].bytes_in == 0
    assert sum(rates.sparks["think"]) == 0


def test_another_node_forgets_too() -> None:
    other = replace(node(102, 10**9), node_id="ab" * 32)
    assert history(node(100, 5), node(101, 5), other).rates().kinds["think"].bytes_in == 0


def test_a_reason_that_occurs_for_the_first_time_has_moved() -> None:
    assert history(node(0), node(1, replayed=2)).rates().moved == {"replayed": 2}


def test_what_was_counted_before_the_first_snapshot_did_not_happen_now() -> None:
    assert history(node(500, replayed=9), node(501, replayed=9)).rates().moved == {}


def test_a_total_that_shrank_is_not_a_negative_rate() -> None:
    assert per_second([Sample(0, {SERIES: 900}), Sample(1, {SERIES: 10})], SERIES) == 0


def test_a_gap_is_spread_evenly() -> None:
    buckets = spark([Sample(0, {SERIES: 0}), Sample(60, {SERIES: 6000})], "think")
    assert buckets == pytest.approx([100] * 60)


def test_a_total_is_level_before_and_after_what_is_known() -> None:
    samples = [Sample(1, {SERIES: 10}), Sample(2, {SERIES: 20})]
    moments = [0, 1, 1.5, 2, 9]
    assert [total_at(samples, SERIES, moment) for moment in moments] == [10, 10, 15, 20, 20]


def test_a_counter_that_moved_is_told_for_ten_seconds() -> None:
    remembered = history(node(0, replayed=1, late=7), node(1, replayed=4, late=7))
    assert remembered.rates().moved == {"replayed": 3}
    remembered.add(node(9, replayed=4, late=7))
    assert "replayed" in remembered.rates().moved
    remembered.add(node(12, replayed=4, late=7))
    assert remembered.rates().moved == {}


def test_a_minute_of_the_example_has_a_rate_for_each_connected_peer() -> None:
    snapshots = list(minute())
    rates = history(*snapshots).rates()
    for peer in snapshots[-1].peers:
        assert (rates.peers[peer.node_id].bytes_in > 0) == peer.connected


@given(
    st.lists(
        st.tuples(st.floats(0.01, 5), st.none() | st.integers(0, 2**40)), min_size=1, max_size=30
    )
)
def test_no_history_makes_a_negative_rate(steps: list[tuple[float, int | None]]) -> None:
    at, samples = 0.0, []
    for pause, total in steps:
        at += pause
        samples.append(Sample(at, {} if total is None else {SERIES: total}))
    assert per_second(samples, SERIES) >= 0
    assert growth(samples, SERIES, 10) >= 0
    assert len(spark(samples, "think")) == 60
    assert min(spark(samples, "think")) >= 0

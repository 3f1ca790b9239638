"""The measurement of plans plans what it says."""

from p2pnode.bench.plan import measure


def test_it_measures_chains_repairs_and_claims() -> None:
    figures = measure(offers=60, layers=6, rounds=1)
    assert figures["offers"] == 60
    assert figures["reasons"] == 10  # the summary, the eight nearest, and how many more
    measured = [value for value in figures.values() if isinstance(value, dict)]
    assert len(measured) == 6
    assert all(value["worst"] >= value["p50"] > 0 for value in measured)

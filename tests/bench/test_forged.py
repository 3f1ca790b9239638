"""What forged datagrams cost is measured on an endpoint that refuses each of them."""

from p2pnode.bench import forged


def test_every_forged_datagram_is_refused_and_the_session_goes_on() -> None:
    shares: list[float] = []
    figures = forged.measure(rounds=2, datagrams=20, tell=shares.append)
    assert shares == [0.5, 1.0]
    assert {row["refused"] for row in figures["rows"]} == {20}
    assert forged.OPEN in {row["kind"] for row in figures["rows"]}
    assert all(row["us"]["p50"] > 0 for row in figures["rows"])
    assert figures["session_works"]

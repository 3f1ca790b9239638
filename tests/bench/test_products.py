"""The measurement of products runs, and says how each type is multiplied."""

import pytest

from p2pnode.bench import products
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.finding import find_library


def test_every_way_is_measured() -> None:
    if find_library(None).chosen is None:
        pytest.skip("no ggml library loads here: pip install libggml-python")
    told: list[float] = []
    figures = products.measure(
        None, rounds=1, tell=told.append, kinds=(Type.F32, Type.Q5_0, Type.Q6_K, Type.IQ3_S)
    )
    assert told[-1] == 1
    assert [row["type"] for row in figures["rows"]] == ["F32", "Q5_0", "Q6_K", "IQ3_S"]
    for row in figures["rows"]:
        for count in products.ROWS:
            assert row[f"rows{count}"]["own"] > 0
            assert row[f"rows{count}"]["expanded"] > 0

"""What is refused, and that a refusal changes nothing."""

import numpy as np
import pytest

from p2pnode.engine.base import Array, Engine
from p2pnode.errors import LocalProtocolError
from tests.engine.conformance.engines import ALL, D_MODEL, ids, run, same, states

BAD_ROWS: dict[str, Array] = {
    "an id too large": np.array([1, 261]),
    "an id far too large": np.array([2**62]),
    "a negative id": np.array([-1, 1]),
    "the least id": np.array([-(2**63)]),
    "no ids": np.empty(0, np.int64),
    "int32 ids": np.array([1], np.int32),
    "uint64 ids": np.array([1], np.uint64),
    "true and false": np.array([True, False]),
    "float ids": np.array([1.0], np.float32),
    "ids in two dimensions": np.array([[1, 2]]),
    "ids as wide as states": np.ones((2, D_MODEL), np.int64),
    "ids of another byte order": np.array([1], ">i8"),
    "an id alone": np.array(1),
    "texts": np.array(["1"]),
    "objects": np.array([1], object),
    "states too narrow": np.ones((2, D_MODEL - 1), np.float32),
    "states too wide": np.ones((2, D_MODEL + 1), np.float32),
    "no states": np.empty((0, D_MODEL), np.float32),
    "one state without a row": np.ones(D_MODEL, np.float32),
    "states in three dimensions": np.ones((1, 1, D_MODEL), np.float32),
    "float64 states": np.ones((1, D_MODEL)),
    "float16 states": np.ones((1, D_MODEL), np.float16),
    "complex states": np.ones((1, D_MODEL), np.complex64),
    "states of another byte order": np.ones((1, D_MODEL), ">f4"),
    "states as objects": np.ones((1, D_MODEL), object),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_cannot_enter_are_refused(engine: Engine, middle: Engine, name: str) -> None:
    bad = BAD_ROWS[name]
    good: dict[Engine, Array] = {engine: ids(3), middle: states(3)}
    for each, rows in good.items():
        for batches in ([bad], [rows, bad], [bad, rows]):
            with pytest.raises(LocalProtocolError):
                each.forward(b"s", each.layers, batches, 0)
            assert each.length(b"s", each.layers.start) == 0
            assert each.kv_bytes() == 0
        before = run(each, b"s", rows)
        with pytest.raises(LocalProtocolError):
            each.forward(b"s", each.layers, [rows, bad], 3)
        assert each.length(b"s", each.layers.start) == 3
        run(each, b"t", rows)
        assert all(map(same, run(each, b"s", rows), run(each, b"t", rows)))
        assert same(run(each, b"u", rows)[0], before[0])


def test_a_call_has_a_batch(engine: Engine) -> None:
    with pytest.raises(LocalProtocolError):
        engine.forward(b"s", ALL, [], 0)
    assert engine.kv_bytes() == 0


@pytest.mark.parametrize("layers", [range(1, 4), range(3, 4)])
def test_ids_enter_at_layer_0_alone(engine: Engine, middle: Engine, layers: range) -> None:
    with pytest.raises(LocalProtocolError):
        engine.forward(b"s", layers, [ids(3)], 0)
    with pytest.raises(LocalProtocolError):
        middle.forward(b"s", middle.layers, [ids(3)], 0)
    assert engine.kv_bytes() == middle.kv_bytes() == 0


def test_hidden_states_may_enter_at_layer_0(engine: Engine) -> None:
    """They are what the embedding would have given."""
    [hidden] = engine.forward(b"s", ALL, [states(3)], 0)
    assert hidden.shape == (3, D_MODEL)


BAD_LAYERS = (
    range(4), range(1, 4), range(2), range(3), range(1, 1), range(2, 1, -1), range(1, 3, 2),
    range(-1, 2), range(3, 4), range(0), range(1, 10**9),
)  # fmt: skip


@pytest.mark.parametrize("layers", BAD_LAYERS, ids=str)
def test_layers_that_are_not_held_are_refused(middle: Engine, layers: range) -> None:
    [_] = middle.forward(b"t", range(1, 3), [states(2)], 0)
    block = middle.export_kv(b"t", range(1, 3), range(2))
    held = middle.kv_bytes()
    with pytest.raises(LocalProtocolError):
        middle.forward(b"s", layers, [states(2)], 0)
    with pytest.raises(LocalProtocolError):
        middle.reserve(b"s", layers, 10)
    with pytest.raises(LocalProtocolError):
        middle.import_kv(b"s", layers, 0, block)
    with pytest.raises(LocalProtocolError):
        middle.export_kv(b"s", layers, range(1))
    assert middle.kv_bytes() == held


@pytest.mark.parametrize("start", [-1, 1, 4, 6, 2**62])
def test_rows_start_where_the_cache_ends(engine: Engine, start: int) -> None:
    with pytest.raises(LocalProtocolError):
        engine.forward(b"t", ALL, [ids(1)], start)
    run(engine, b"s", ids(5))
    with pytest.raises(LocalProtocolError):
        engine.forward(b"s", ALL, [ids(1)], start)
    assert (engine.length(b"s", 0), engine.length(b"t", 0)) == (5, 0)


def test_a_cache_keeps_its_layers(engine: Engine) -> None:
    """It belongs to its first layer; another run from there on would leave layers behind."""
    run(engine, b"s", ids(5))
    held = engine.kv_bytes()
    with pytest.raises(LocalProtocolError):
        engine.forward(b"s", range(2), [ids(1)], 5)
    with pytest.raises(LocalProtocolError):
        engine.reserve(b"s", range(2), 100)
    assert (engine.length(b"s", 0), engine.kv_bytes()) == (5, held)


def test_a_negative_length_is_refused(engine: Engine) -> None:
    run(engine, b"s", ids(5))
    with pytest.raises(LocalProtocolError):
        engine.truncate(b"s", -1)
    with pytest.raises(LocalProtocolError):
        engine.truncate(b"unknown", -1)
    assert engine.length(b"s", 0) == 5


def test_logits_need_the_last_layer(middle: Engine) -> None:
    with pytest.raises(LocalProtocolError):
        middle.logits(states(1))
    with pytest.raises(LocalProtocolError):
        middle.normed(states(1))


@pytest.mark.parametrize("name", [name for name in BAD_ROWS if name != "no states"])
def test_logits_of_anything_but_states_are_refused(engine: Engine, name: str) -> None:
    with pytest.raises(LocalProtocolError):
        engine.logits(BAD_ROWS[name])
    with pytest.raises(LocalProtocolError):
        engine.normed(BAD_ROWS[name])


def test_what_is_unknown_is_empty(engine: Engine) -> None:
    assert engine.length(b"unknown", 0) == engine.length(b"unknown", -7) == 0
    engine.close(b"unknown")
    engine.truncate(b"unknown", 0)
    engine.truncate(b"unknown", 5)
    assert engine.length(b"unknown", 0) == engine.kv_bytes() == 0


@pytest.mark.parametrize("key", [b"", b"\0", b"\0calibration", b"x" * 100_000])
def test_any_bytes_are_a_session(engine: Engine, key: bytes) -> None:
    [ours] = run(engine, key, ids(4))
    assert same(ours, run(engine, b"s", ids(4))[0])
    engine.close(key)
    assert engine.length(key, 0) == 0

"""Truncation, and keys and values that travel: what follows is as if nothing had happened."""

import numpy as np
import pytest

from p2pnode.engine.base import Engine, KvBlock
from p2pnode.errors import CapacityError, LocalProtocolError
from tests.engine.conformance.engines import ALL, CONTEXT, MODELS, ids, run, same, states
from tests.engine.conformance.loader import Loader

NEXT = (1, 1, 40, 1, 7)
"""Batches that follow: what they give shows what the cache holds."""


def _go_on(engine: Engine, session: bytes) -> list[bytes]:
    return [hidden.tobytes() for hidden in run(engine, session, ids(sum(NEXT), seed=9), NEXT)]


def _prefill(engine: Engine, session: bytes, length: int) -> None:
    """Fill a session always by the same batches, as far as it goes."""
    sizes = (*(50,) * (length // 50), length % 50)
    if length:
        run(engine, session, ids(2000)[:length], tuple(size for size in sizes if size))


@pytest.mark.parametrize("kept", [0, 1, 50, 250, 500, 600])
def test_what_was_truncated_has_never_been(engine: Engine, kept: int) -> None:
    _prefill(engine, b"t", kept)
    expected = _go_on(engine, b"t")
    _prefill(engine, b"s", kept)
    run(engine, b"s", ids(300, seed=3), (299, 1))
    engine.truncate(b"s", kept)
    assert engine.length(b"s", 0) == kept
    assert _go_on(engine, b"s") == expected


def test_truncation_within_a_batch(engine: Engine) -> None:
    """Speculation keeps the first rows of a batch: they go on as the whole batch computed them."""
    run(engine, b"s", ids(30))
    run(engine, b"s", ids(8, seed=1))
    first = _go_on(engine, b"s")
    engine.truncate(b"s", 33)
    assert engine.length(b"s", 0) == 33
    run(engine, b"s", ids(8, seed=1)[3:])
    engine.truncate(b"s", 33)
    block = engine.export_kv(b"s", ALL, range(33))
    engine.import_kv(b"t", ALL, 0, block)
    assert _go_on(engine, b"s") == _go_on(engine, b"t")
    assert len(first) == len(NEXT)


def test_truncation_reaches_all_caches_of_the_session_and_no_other(engine: Engine) -> None:
    state = states(20)
    engine.forward(b"s", range(2), [ids(20)], 0)
    engine.forward(b"s", range(2, 3), [state], 0)
    engine.forward(b"s", range(3, 4), [state[:5]], 0)
    run(engine, b"t", ids(20))
    engine.truncate(b"s", 12)
    assert [engine.length(b"s", layer) for layer in ALL] == [12, 0, 12, 5]  # the shorter stays
    assert engine.length(b"t", 0) == 20
    engine.truncate(b"s", 12)
    engine.truncate(b"s", 10**12)
    assert [engine.length(b"s", layer) for layer in ALL] == [12, 0, 12, 5]
    engine.forward(b"u", range(2, 3), [state[:12]], 0)
    for key in (b"s", b"u"):
        engine.forward(key, range(2, 3), [state[12:]], 12)
    exports = [engine.export_kv(key, range(2, 3), range(12, 20)) for key in (b"s", b"u")]
    assert exports[0].tobytes() == exports[1].tobytes()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("length", [1, 100, 256, 600])
def test_keys_and_values_travel(loader: Loader, model: str, length: int) -> None:
    engine = loader.shared(model)
    _prefill(engine, b"s", length)
    block = engine.export_kv(b"s", ALL, range(length))
    info = engine.info
    assert block.shape == (len(ALL), 2, length, info.n_kv_heads * info.head_dim)
    assert block.nbytes <= length * len(ALL) * engine.kv_bytes_per_token_layer
    expected = _go_on(engine, b"s")
    engine.import_kv(b"t", ALL, 0, block)
    assert engine.length(b"t", 0) == length
    again = engine.export_kv(b"t", ALL, range(length))
    assert (again.dtype, again.tobytes()) == (block.dtype, block.tobytes())
    assert _go_on(engine, b"t") == expected  # in another session


def test_they_travel_to_another_engine_piece_by_piece(loader: Loader, engine: Engine) -> None:
    _prefill(engine, b"s", 300)
    pieces = [range(100), range(100, 101), range(101, 101), range(101, 300)]
    blocks = [engine.export_kv(b"s", ALL, piece) for piece in pieces]
    other = loader.fresh()
    run(other, b"t", ids(70, seed=5))
    for piece, block in zip(pieces, blocks, strict=True):
        other.import_kv(b"s", ALL, piece.start, block)
        assert other.length(b"s", 0) == piece.stop
    assert _go_on(other, b"s") == _go_on(engine, b"s")


def test_a_part_of_the_layers_travels(loader: Loader, engine: Engine, middle: Engine) -> None:
    rows = states(90)
    middle.forward(b"s", range(1, 3), [rows], 0)
    block = middle.export_kv(b"s", range(1, 3), range(90))
    engine.import_kv(b"s", range(1, 3), 0, block)
    more = states(5, seed=1)
    [expected] = middle.forward(b"s", range(1, 3), [more], 90)
    assert same(engine.forward(b"s", range(1, 3), [more], 90)[0], expected)
    assert engine.length(b"s", 0) == 0


def test_an_import_goes_on_after_rows_of_its_own(engine: Engine) -> None:
    _prefill(engine, b"s", 100)
    expected = _go_on(engine, b"s")
    _prefill(engine, b"t", 50)
    engine.import_kv(b"t", ALL, 50, engine.export_kv(b"s", ALL, range(50, 100)))
    assert _go_on(engine, b"t") == expected


def test_a_block_is_a_copy_and_may_lie_anywhere(engine: Engine) -> None:
    _prefill(engine, b"s", 50)
    block = engine.export_kv(b"s", ALL, range(50))
    kept = block.copy()
    strange = np.repeat(block, 2, axis=2)[:, :, ::2]  # not contiguous
    strange.flags.writeable = False
    engine.import_kv(b"t", ALL, 0, strange)
    expected = _go_on(engine, b"s")
    assert block.tobytes() == kept.tobytes()
    block[:] = 0
    engine.import_kv(b"u", ALL, 0, kept)
    kept[:] = 0
    assert _go_on(engine, b"t") == _go_on(engine, b"u") == expected


@pytest.mark.parametrize(
    "positions",
    [range(21), range(20, 21), range(-1, 3), range(0, 10, 2), range(5, 1, -1), range(10**12)],
    ids=str,
)
def test_positions_that_are_not_there_are_not_exported(engine: Engine, positions: range) -> None:
    run(engine, b"s", ids(40))
    engine.truncate(b"s", 20)
    with pytest.raises(LocalProtocolError):
        engine.export_kv(b"s", ALL, positions)
    with pytest.raises(LocalProtocolError):
        engine.export_kv(b"unknown", ALL, positions)


@pytest.mark.parametrize("layers", [range(1, 4), range(3, 4), range(5), range(2, 2)], ids=str)
def test_layers_that_have_no_cache_are_not_exported(engine: Engine, layers: range) -> None:
    run(engine, b"s", ids(5))
    with pytest.raises(LocalProtocolError):
        engine.export_kv(b"s", layers, range(2))


def _with(block: KvBlock, value: float) -> KvBlock:
    spoilt = block.copy()
    spoilt[-1, 1, -1, -1] = value
    return spoilt


def test_a_bad_block_is_refused_and_changes_nothing(engine: Engine) -> None:
    _prefill(engine, b"s", 50)
    block = engine.export_kv(b"s", ALL, range(50))
    other = np.float64 if block.dtype != np.float64 else np.float32
    bad = {
        "type": block.astype(other),
        "bytes": block.view(np.uint8),
        "objects": block.astype(object),
        "byte order": block.astype(block.dtype.newbyteorder(">")),
        "fewer layers": block[1:],
        "more layers": np.concatenate([block, block[:1]]),
        "keys alone": block[:, :1],
        "narrow": block[..., 1:],
        "wide": np.concatenate([block, block[..., :1]], axis=-1),
        "flat": block.reshape(-1),
        "a number": block[0, 0, 0, 0],
        "five dimensions": block[None],
        "nothing": np.empty(0, block.dtype),
        **{f"{value}": _with(block, value) for value in (np.nan, np.inf, -np.inf)},
    }
    held = engine.kv_bytes()
    for name, spoilt in bad.items():
        for session, start in ((b"t", 0), (b"s", 50)):
            with pytest.raises(LocalProtocolError):
                engine.import_kv(session, ALL, start, np.asarray(spoilt))
            assert engine.length(session, 0) == start, name
            assert engine.kv_bytes() == held, name
    for start in (-1, 1, 49, 51, 10**12):
        with pytest.raises(LocalProtocolError):
            engine.import_kv(b"s", ALL, start, block)
    with pytest.raises(LocalProtocolError):
        engine.import_kv(b"s", range(2), 50, block[:2])  # the session runs four
    assert engine.kv_bytes() == held
    _prefill(engine, b"t", 50)
    assert _go_on(engine, b"s") == _go_on(engine, b"t")


def test_a_block_beyond_the_context_is_refused(engine: Engine) -> None:
    _prefill(engine, b"s", 600)
    block = engine.export_kv(b"s", ALL, range(600))
    held = engine.kv_bytes()
    with pytest.raises(CapacityError):
        engine.import_kv(b"t", ALL, 0, np.concatenate([block, block], axis=2))
    with pytest.raises(CapacityError):
        engine.import_kv(b"s", ALL, 600, block)
    assert (engine.length(b"s", 0), engine.length(b"t", 0)) == (600, 0)
    assert engine.kv_bytes() == held
    assert engine.info.context_length == CONTEXT

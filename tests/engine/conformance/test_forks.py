"""A session that goes on from another's cache computes the same bits as that one."""

import pytest

from p2pnode.engine.base import Engine
from p2pnode.errors import CapacityError, LocalProtocolError
from tests.engine.conformance.engines import ALL, CONTEXT, MODELS, ids, run
from tests.engine.conformance.loader import Loader

NEXT = (1, 1, 40, 1)


def _go_on(engine: Engine, session: bytes) -> list[bytes]:
    return [hidden.tobytes() for hidden in run(engine, session, ids(sum(NEXT), seed=9), NEXT)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("length", [1, 64, 256, 600])
def test_a_fork_goes_on_as_its_origin(loader: Loader, model: str, length: int) -> None:
    engine = loader.shared(model)
    run(engine, b"s", ids(length))
    engine.fork(b"s", b"t", ALL, length, length + sum(NEXT))
    assert (engine.length(b"s", 0), engine.length(b"t", 0)) == (length, length)
    forked = _go_on(engine, b"t")
    assert _go_on(engine, b"s") == forked


def test_a_fork_of_a_part_is_as_if_truncated(engine: Engine) -> None:
    run(engine, b"s", ids(300), (64, 64, 64, 64, 44))
    engine.fork(b"s", b"t", ALL, 128, 400)
    engine.truncate(b"s", 128)
    assert _go_on(engine, b"t") == _go_on(engine, b"s")


def test_a_fork_does_not_touch_its_origin_nor_needs_it(engine: Engine) -> None:
    run(engine, b"s", ids(100))
    engine.fork(b"s", b"t", ALL, 100, 200)
    engine.fork(b"s", b"u", ALL, 100, 200)
    forked = _go_on(engine, b"t")
    engine.close(b"t")
    assert _go_on(engine, b"s") == forked
    engine.close(b"s")
    assert _go_on(engine, b"u") == forked


def test_a_session_by_another_name_is_the_same(engine: Engine) -> None:
    run(engine, b"s", ids(100))
    engine.fork(b"s", b"t", ALL, 100, 200)
    held = engine.kv_bytes()
    engine.rename(b"t", b"u")
    assert (engine.length(b"t", 0), engine.length(b"u", 0)) == (0, 100)
    assert engine.kv_bytes() == held
    renamed = _go_on(engine, b"u")
    assert _go_on(engine, b"s") == renamed
    engine.rename(b"nobody", b"t")
    assert engine.length(b"t", 0) == 0


def test_what_cannot_be_forked_is_refused_and_changes_nothing(engine: Engine) -> None:
    run(engine, b"s", ids(50))
    run(engine, b"t", ids(5))
    held = engine.kv_bytes()
    for session, other, layers, length, positions in (
        (b"s", b"t", ALL, 50, 60),  # there already
        (b"s", b"u", ALL, 51, 60),
        (b"s", b"u", range(2), 50, 60),
        (b"s", b"u", ALL, 50, 49),
        (b"nobody", b"u", ALL, 1, 60),
    ):
        with pytest.raises(LocalProtocolError):
            engine.fork(session, other, layers, length, positions)
    with pytest.raises(CapacityError):
        engine.fork(b"s", b"u", ALL, 50, CONTEXT + 1)
    with pytest.raises(LocalProtocolError):
        engine.rename(b"s", b"t")
    assert engine.kv_bytes() == held
    assert [engine.length(key, 0) for key in (b"s", b"t", b"u")] == [50, 5, 0]


def test_a_fork_beyond_the_budget_is_refused_and_changes_nothing(loader: Loader) -> None:
    engine = loader.shared()
    room = engine.kv_sizes.rounded(1000) * len(ALL) * engine.kv_bytes_per_token_layer
    tight = loader.fresh(budget=room)
    run(tight, b"s", ids(600))
    held = tight.kv_bytes()
    with pytest.raises(CapacityError):
        tight.fork(b"s", b"t", ALL, 600, 1000)
    assert tight.kv_bytes() == held
    assert tight.length(b"t", 0) == 0

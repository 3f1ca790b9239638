"""A row by the short way through the engine is, bit for bit, the row by the long one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.ggml.slot import CELLS, GgmlSlot
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.errors import LocalProtocolError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

RUN = range(3)
WIDTH = 64
SESSIONS = (b"one", b"two")


class LongWay(GgmlEngine):
    """The same engine, which forgets what a row's graph was, and what its masks show."""

    def forward(self, *args: Any) -> list[Any]:
        for slot in self._slots._slots.values():
            slot.step = None
        for graph in self._graphs[0]._kept.values():
            for masks in graph._masks:
                masks._start = None
        return super().forward(*args)


@pytest.fixture(scope="module", params=[0, 8], ids=["full", "windowed"], name="engines")
def _engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, library: Candidate
) -> Iterator[tuple[GgmlEngine, GgmlEngine]]:
    path = tmp_path_factory.mktemp("short") / "tiny.gguf"
    window = request.param

    def edit(writer: Any) -> None:
        if window:
            writer.add_uint32("llama.attention.sliding_window", window)

    write_tiny_gguf(path, n_layers=len(RUN), context_length=1024, edit=edit)
    with GgufFile(path) as file:
        tree = hash_file(file)
    made = [load_ggml(library, path, RUN, tree, kv_budget_bytes=1 << 26) for _ in range(2)]
    long = made[1]
    long.__class__ = LongWay
    yield made[0], long
    for one in made:
        one.shut()


def rows(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def taken(engine: GgmlEngine, session: bytes, layers: range) -> bool:
    slot = engine._slots.known(session, layers)
    return isinstance(slot, GgmlSlot) and slot.step is not None


CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("row"), st.sampled_from(SESSIONS), st.integers(1, 6)),
        st.tuples(st.just("batch"), st.sampled_from(SESSIONS), st.sampled_from([2, 40, 250])),
        st.tuples(st.just("truncate"), st.sampled_from(SESSIONS), st.integers(0, 260)),
        st.tuples(st.just("reserve"), st.sampled_from(SESSIONS), st.integers(1, 600)),
        st.tuples(st.just("bad"), st.sampled_from(SESSIONS), st.just(1)),
        st.tuples(st.just("close"), st.sampled_from(SESSIONS), st.just(0)),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=60)
@given(CALLS)
def test_any_calls_give_the_same(
    engines: tuple[GgmlEngine, GgmlEngine], calls: list[tuple[str, bytes, int]]
) -> None:
    for one in engines:
        for session in SESSIONS:
            one.close(session)
    for number, (kind, session, size) in enumerate(calls):
        start = engines[0].length(session, 0)
        assert engines[1].length(session, 0) == start
        if kind == "row":
            for at in range(start, start + size):
                same(engines, session, rows(number, 1), at)
        elif kind == "batch":
            same(engines, session, rows(number, size), start)
        elif kind == "bad":
            same(engines, session, np.full((1, WIDTH), np.nan, np.float32), start)
            for one in engines:
                one.truncate(session, start)
        for one in engines:
            if kind == "truncate":
                one.truncate(session, size)
            elif kind == "reserve":
                one.reserve(session, RUN, max(size, start))
            elif kind == "close":
                one.close(session)


def same(
    engines: tuple[GgmlEngine, GgmlEngine],
    session: bytes,
    states: np.ndarray[Any, np.dtype[np.float32]],
    start: int,
) -> None:
    short, long = (one.forward(session, RUN, [states.copy()], start)[0] for one in engines)
    assert short.tobytes() == long.tobytes()


def test_rows_take_it_across_the_end_of_their_cells(
    engines: tuple[GgmlEngine, GgmlEngine],
) -> None:
    session = b"long"
    same(engines, session, rows(1, CELLS - 2), 0)
    for at in range(CELLS - 2, CELLS + 3):
        same(engines, session, rows(at, 1), at)
        assert taken(engines[0], session, RUN)
    for one in engines:
        one.truncate(session, 40)
    for at in range(40, 44):
        same(engines, session, rows(at, 1), at)
    for one in engines:
        one.close(session)


def test_a_graph_that_made_room_for_others_is_built_anew(
    engines: tuple[GgmlEngine, GgmlEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = engines[0]
    monkeypatch.setattr(short._graphs[0], "_most", 2)
    names = [bytes([number]) for number in range(5)]
    for name in names:
        same(engines, name, rows(0, 1), 0)
    for at in (1, 2):
        for name in names:
            same(engines, name, rows(at, 1), at)
    for name in names:
        for one in engines:
            one.close(name)


def test_what_is_given_is_left_as_it_was_and_wrong_shapes_are_refused(
    engines: tuple[GgmlEngine, GgmlEngine],
) -> None:
    short = engines[0]
    given_rows = rows(3, 1)
    before = given_rows.copy()
    short.forward(b"s", RUN, [given_rows], 0)
    (first,) = short.forward(b"s", RUN, [given_rows], 1)
    kept = first.copy()
    short.forward(b"s", RUN, [given_rows], 2)
    assert (given_rows == before).all()
    assert (first == kept).all()  # ours, not the engine's
    for wrong in (rows(0, 1)[:, :-1], rows(0, 1).astype(np.float64), rows(0, 1)[0], rows(0, 0)):
        with pytest.raises(LocalProtocolError):
            short.forward(b"s", RUN, [wrong], 3)
    with pytest.raises(LocalProtocolError):
        short.forward(b"s", RUN, [given_rows], 2)  # not where its cache ends
    with pytest.raises(LocalProtocolError):
        short.forward(b"s", range(2), [given_rows], 3)  # other layers from the same first one
    assert short.length(b"s", 0) == 3
    short.close(b"s")

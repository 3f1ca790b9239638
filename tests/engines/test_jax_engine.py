"""What the JAX engine promises beside its results: programs, memory, errors and hand-over."""

import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pnode.engine.base import Array, Floats, SessionRows
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import hash_file
from p2pnode.engine.jax.load import load_jax
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.errors import CapacityError, EngineError, ModelChangedError, ModelError, UsageError
from p2pnode.testing.tiny_gguf import write_tiny_gguf

jax = pytest.importorskip("jax", reason="needs jax: make test-engines")

from p2pnode.engine.jax.engine import JaxEngine, _aligned  # noqa: E402  after the skip
from p2pnode.engine.jax.programs import ROWS, kv_lengths, padded_rows  # noqa: E402

CONTEXT = 600  # no multiple of what caches are made of
ALL = range(3)
SIZES = (1, 1, 70, 1, 129, 50, 1, 3, 33)
"""Batches that meet every number of rows and cross 256 positions."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("jax") / "tiny.gguf"
    write_tiny_gguf(path, n_layers=len(ALL), context_length=CONTEXT)
    return path


def load(path: Path, layers: range = ALL, **options: Any) -> JaxEngine:
    with GgufFile(path) as file:
        tree = hash_file(file)
    return load_jax(path, layers, tree, **{"device": "cpu", "kv_budget_bytes": 1 << 24, **options})


@pytest.fixture(scope="module")
def loaded(path: Path) -> JaxEngine:
    return load(path)


@pytest.fixture
def engine(loaded: JaxEngine) -> Iterator[JaxEngine]:
    yield loaded
    for session in (b"s", b"t", b"u"):
        loaded.close(session)
    assert loaded.kv_bytes() == 0


def ids(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, count)


def run(engine: Any, session: bytes, sizes: tuple[int, ...] = SIZES) -> list[Floats]:
    """Run tokens through all layers, one call for each of these batch sizes."""
    found = []
    for batch in np.split(ids(sum(sizes)), np.cumsum(sizes)[:-1]):
        found += engine.forward(session, engine.layers, [batch], engine.length(session, 0))
    return found


def same(ours: list[Floats], theirs: list[Floats]) -> bool:
    return [one.tobytes() for one in ours] == [one.tobytes() for one in theirs]


def test_results_are_near_numpys_in_every_batch(engine: JaxEngine, path: Path) -> None:
    reference = NumpyEngine.load(path, ALL)
    for ours, theirs in zip(run(engine, b"s"), run(reference, b"s"), strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)
    rows = theirs[:5]
    np.testing.assert_allclose(engine.logits(rows), reference.logits(rows), rtol=1e-4, atol=1e-5)


def test_batches_of_a_call_and_replays_are_the_same_to_the_bit(engine: JaxEngine) -> None:
    expected = run(engine, b"s")
    batches = np.split(ids(sum(SIZES)), np.cumsum(SIZES)[:-1])
    assert same(engine.forward(b"t", ALL, batches, 0), expected)
    engine.reserve(b"u", ALL, CONTEXT)  # how much memory a session has changes nothing
    assert same(run(engine, b"u"), expected)


def test_a_split_equals_the_whole_to_the_bit(engine: JaxEngine, path: Path) -> None:
    expected = run(engine, b"s")
    for cut in (1, 2):
        first, last = load(path, range(cut)), load(path, range(cut, 3))
        at, found = 0, []
        for state in run(first, b"s"):
            found += last.forward(b"s", last.layers, [state], at)
            at += len(state)
        assert same(found, expected)


def test_so_many_programs_at_the_most_and_no_token_waits_for_one(
    engine: JaxEngine, path: Path
) -> None:
    assert (padded_rows(1), padded_rows(2), padded_rows(8), padded_rows(65)) == (1, 8, 8, 128)
    assert kv_lengths(CONTEXT) == (256, 512, 768)
    assert kv_lengths(8192) == (256, 512, 1024, 2048, 4096, 8192)
    assert engine.programs.most == len(ROWS) * 3 + 1
    sizes = (*SIZES, *(1,) * (CONTEXT - sum(SIZES)))
    run(engine, b"s", sizes)
    engine.logits(np.ones((9, 64), np.float32))
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _seconds, **_: compiled.append(event)
    )
    try:
        other = load(path)  # of the same shape: it shares the programs
        other.reserve(b"s", ALL, CONTEXT)
        run(engine, b"t", sizes)
        run(other, b"s", sizes)
        other.logits(np.ones((5, 64), np.float32))
        jax.jit(lambda x: x + 7)(1)
    finally:
        jax.monitoring.clear_event_listeners()
    assert len([event for event in compiled if "backend_compile" in event]) == 1  # the last
    assert len(engine.programs) <= engine.programs.most
    assert other.programs is engine.programs


def test_caches_are_written_in_place(engine: JaxEngine) -> None:
    run(engine, b"s", (200,))
    slot = engine._slots.slot(b"s", ALL, 300)

    def places() -> list[int]:
        return [part.unsafe_buffer_pointer() for part in (*slot.keys[0], *slot.values[2])]

    before = places()
    assert len(before) == 4
    run(engine, b"s", (1, 8, 60, 1, 1))
    assert places() == before
    engine.export_kv(b"s", ALL, range(10, 260))
    run(engine, b"s", (1, 1))
    assert places() == before


def test_padding_leaves_no_trace(engine: JaxEngine) -> None:
    run(engine, b"s", (2, 100))  # padded to 8 and 128 rows
    slot = engine._slots.slot(b"s", ALL, 102)
    for segments in (*slot.keys, *slot.values):
        array = np.asarray(segments[0])
        assert array[:, :102].any(axis=-1).all()
        assert not array[:, 102:].any()


@pytest.mark.parametrize("count", [1, 2, 8, 100, 128])
def test_hidden_states_are_handed_over_without_a_copy(
    engine: JaxEngine, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is copied is what pads them, and the results, which are the caller's own."""
    given: list[Floats] = []

    def aligned(rows: int, width: int) -> Floats:
        given.append(_aligned(rows, width))
        return given[-1]

    monkeypatch.setattr("p2pnode.engine.jax.engine._aligned", aligned)
    cut = engine._cut(np.ones((count, 64), np.float32), 0, 1)
    assert cut.x.unsafe_buffer_pointer() == given[0].ctypes.data
    assert np.asarray(cut.x).ctypes.data == given[0].ctypes.data
    assert np.from_dlpack(cut.x).ctypes.data == given[0].ctypes.data
    assert (given[0][count:] == 0).all()
    [ours] = engine.forward(b"s", ALL, [np.ones((count, 64), np.float32)], 0)
    ours[:] = 0


def test_what_a_session_holds_is_counted_in_whole_segments(path: Path) -> None:
    engine = load(path, kv_budget_bytes=768 * 3 * 2 * 32 * 4)
    per_position = 3 * engine.kv_bytes_per_token_layer
    engine.reserve(b"s", ALL, 257)
    assert engine.kv_bytes() == 512 * per_position
    run(engine, b"t", (1,))
    assert engine.kv_bytes() == 768 * per_position == engine.kv_budget_bytes
    with pytest.raises(CapacityError):
        engine.forward(b"t", ALL, [ids(256)], 1)
    engine.close(b"t")
    run(engine, b"s", (CONTEXT,))  # beyond the doubled length there is the context's rest
    assert engine.kv_bytes() == 768 * per_position
    with pytest.raises(CapacityError, match="context is full"):
        run(engine, b"s", (1,))


def test_what_is_no_number_leaves_no_trace(engine: JaxEngine) -> None:
    run(engine, b"t", (5,))
    expected = run(engine, b"t", (1, 2))
    run(engine, b"s", (5,))
    engine.forward(b"s", ALL, [np.full((300, 64), np.nan, np.float32)], 5)
    engine.truncate(b"s", 5)
    assert same(run(engine, b"s", (1, 2)), expected)
    engine.truncate(b"s", 5)
    block = engine.export_kv(b"t", ALL, range(5, 8))
    engine.forward(b"s", ALL, [np.full((4, 64), np.inf, np.float32)], 5)
    engine.truncate(b"s", 5)
    engine.import_kv(b"s", ALL, 5, block)
    assert same(run(engine, b"s", (1,)), run(engine, b"t", (1,)))


def test_caches_travel_over_segments(engine: JaxEngine) -> None:
    run(engine, b"s", (300,))
    for cut in (0, 7, 256, 300):
        for piece in (range(cut), range(cut, 300)):
            engine.import_kv(b"t", ALL, piece.start, engine.export_kv(b"s", ALL, piece))
        engine.forward(b"u", ALL, [ids(300)], 0)
        assert same(run(engine, b"t", (3,)), run(engine, b"u", (3,)))
        engine.close(b"t")
        engine.close(b"u")


class Failing:
    """Programs whose calls fail after so many, taking what was donated with them or not."""

    def __init__(self, engine: JaxEngine, message: str, *, after: int, takes: bool) -> None:
        self._programs = engine.programs
        self._left = after
        self._message = message
        self._takes = takes

    def layer(self, rows: int, segments: int) -> Any:
        program = self._programs.layer(rows, segments)

        def call(layer: Any, keys: Any, values: Any, *rest: Any) -> Any:
            self._left -= 1
            if self._left >= 0:
                return program(layer, keys, values, *rest)
            if self._takes:
                keys[0].delete()
            raise jax.errors.JaxRuntimeError(self._message)

        return call


def test_one_that_is_shut_holds_no_memory_of_the_device(path: Path) -> None:
    engine = load(path)
    run(engine, b"s", (3,))
    slot = engine._slots.slot(b"s", ALL, 3)
    assert engine._weights.head is not None
    held = [*engine._weights.blocks[1], *engine._weights.head, *slot.keys[0]]
    weak = [weakref.ref(array) for array in held]
    del held
    engine.shut()
    assert engine.kv_bytes() == 0
    assert [array() for array in weak] == [None] * 9


def test_a_gpu_computes_what_the_cpu_does(path: Path, engine: JaxEngine) -> None:
    if jax.default_backend() != "gpu":
        pytest.skip("jax has no GPU here")
    there = load(path, device="cuda")
    assert there.device.startswith("cuda:0 ")
    expected = run(there, b"s")
    for ours, theirs in zip(expected, run(engine, b"s"), strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)
    there.import_kv(b"t", ALL, 0, there.export_kv(b"s", ALL, range(256)))
    assert there.length(b"t", 0) == 256
    there.truncate(b"s", 0)
    assert same(run(there, b"s"), expected)
    first, last = load(path, range(1), device="cuda"), load(path, range(1, 3), device="cuda")
    [state] = first.forward(b"s", range(1), [ids(70)], 0)
    [whole] = there.forward(b"u", ALL, [ids(70)], 0)
    assert same(last.forward(b"s", range(1, 3), [state], 0), [whole])


def test_one_that_cannot_be_compiled_is_shut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut: list[JaxEngine] = []

    def fail(_: JaxEngine) -> None:
        raise CapacityError("no memory to compile")

    def note(engine: JaxEngine) -> None:
        shut.append(engine)

    monkeypatch.setattr(JaxEngine, "warm", fail)
    monkeypatch.setattr(JaxEngine, "shut", note)
    with pytest.raises(CapacityError, match="to compile"):
        load(path)
    assert len(shut) == 1


OOM = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmany\nlines"


@pytest.mark.parametrize("after", [0, 2])
def test_no_memory_to_compute_changes_nothing(
    engine: JaxEngine, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (b"s", b"t", b"u"):
        run(engine, key, (20,))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_programs", Failing(engine, OOM, after=after, takes=False))
        with pytest.raises(CapacityError, match=r"no memory to compute: RESOURCE_EXHAUSTED.*9 by"):
            engine.forward(b"s", ALL, [ids(3, 5), ids(9, 5)], 20)
        patch.setattr(engine, "_programs", Failing(engine, OOM, after=3 + after, takes=False))
        with pytest.raises(CapacityError):  # at the second session
            engine.forward_many(ALL, [SessionRows(key, ids(4, 6), 20) for key in (b"s", b"t")])
    assert [engine.length(key, 0) for key in (b"s", b"t")] == [20, 20]
    expected = run(engine, b"u", (5, 1))
    assert same(run(engine, b"s", (5, 1)), expected)
    assert same(run(engine, b"t", (5, 1)), expected)


def test_a_session_whose_cache_went_with_a_call_is_of_no_more_use(
    engine: JaxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(engine, b"s", (20,))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_programs", Failing(engine, OOM, after=1, takes=True))
        with pytest.raises(EngineError, match="no memory to compute"):
            run(engine, b"s", (1,))
    engine.close(b"s")
    assert run(engine, b"s", (20,))


def test_a_device_that_fails_is_told_in_one_line(
    engine: JaxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(engine, "INTERNAL: the device\x1b is lost\nat f()", after=1, takes=True)
    monkeypatch.setattr(engine, "_programs", failing)
    with pytest.raises(EngineError) as caught:
        run(engine, b"s", (20,))
    assert str(caught.value) == "jax failed to compute: INTERNAL: the device is lost"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "tpu", "metal", "cpu:7", "cpu:99999999999"])
def test_a_device_that_is_not_here_is_refused(path: Path, device: str) -> None:
    if device.partition(":")[0] in {one.platform for one in jax.devices()} - {"cpu"}:
        pytest.skip("it is here")
    with pytest.raises(EngineError, match=f"no device {device} here: ") as caught:
        load(path, device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["gpu", "", ":", "cuda:x", "cuda:-1", "cuda:0:1", "CPU"])
def test_an_unknown_device_is_refused_with_those_there_are(path: Path, device: str) -> None:
    with pytest.raises(UsageError, match="knows no device") as caught:
        load(path, device=device)
    assert "auto, cpu, cuda" in caught.value.hint


def test_its_name_says_what_computes(engine: JaxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"jax [\d.]+/cpu x\d+ [0-9a-f]{8}/f32", engine.numerics)
    assert re.fullmatch(r"cpu x\d+", engine.device)
    from p2pnode.engine.jax import runtime

    cpu = jax.local_devices(backend="cpu")[0]
    monkeypatch.setenv("XLA_FLAGS", "--another")
    other = runtime.name_of_numerics(cpu, "f32")
    assert other != engine.numerics
    assert len({other, runtime.name_of_numerics(cpu, "bf16"), engine.numerics}) == 3


@pytest.mark.parametrize("layers", [range(4), range(2, 2), range(-1, 2), range(0, 3, 2)])
def test_layers_that_the_file_has_not_are_refused(path: Path, layers: range) -> None:
    with pytest.raises(ModelError, match="has layers 0:3"):
        load(path, layers)


def test_a_file_that_is_not_what_was_hashed_is_refused(path: Path, tmp_path: Path) -> None:
    with GgufFile(path) as file:
        tree = hash_file(file)
        tensor = file.tensors["blk.1.ffn_up.weight"]
    data = bytearray(path.read_bytes())
    data[tensor.offset + 5] ^= 1
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(data)
    load_jax(changed, range(1), tree, device="cpu", kv_budget_bytes=1 << 20)  # not of these layers
    with pytest.raises(ModelChangedError):
        load_jax(changed, range(1, 2), tree, device="cpu", kv_budget_bytes=1 << 20)


def test_progress_goes_from_0_to_1(path: Path) -> None:
    heard: list[float] = []
    load(path, progress=heard.append)
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (0.0, 1.0)

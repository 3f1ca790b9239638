"""Long batches by BLAS: every type against gguf's own expansion, at, below and above the limit."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, dequantize

from p2pnode.engine.base import Floats
from p2pnode.engine.ggml import expand, load as load_module, weights as weights_module
from p2pnode.engine.ggml.backend import Backend, Tensors, read, write
from p2pnode.engine.ggml.binding import Ggml, load
from p2pnode.engine.ggml.coded import AS_Q8_0, is_coded
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.expand import Scratch, expanded_from, tile_rows
from p2pnode.engine.ggml.finding import find_library
from p2pnode.engine.ggml.layers import LayerBuilder, PartInputs
from p2pnode.engine.ggml.mapped_tensors import MappedTensors
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TENSOR_TYPES
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.testing.tiny_gguf import write_tiny_gguf

KINDS: Final = tuple(Type(code) for code in sorted(TENSOR_TYPES) if code != Type.NVFP4)
SECOND: Final = tuple(kind for kind in KINDS if is_coded(kind) or kind in AS_Q8_0)
OUT: Final = 300  # two whole tiles and a part of one
WIDTH: Final = 256
MOST: Final = 140
_NODES: Final = 16


@pytest.fixture(scope="module")
def ggml() -> Ggml:
    chosen = find_library(None).chosen
    if chosen is None:
        pytest.skip("no ggml library loads here: pip install libggml-python")
    return load(chosen.provider, gpus=False)


@pytest.fixture(scope="module")
def file(ggml: Ggml, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufFile]:
    """A file with a matrix [OUT, WIDTH] of each type, named by it."""
    path = tmp_path_factory.mktemp("types") / "m.gguf"
    writer, rng = GGUFWriter(path, "llama"), np.random.default_rng(1)
    for kind in KINDS:
        matrix = rng.standard_normal((OUT, WIDTH)).astype(np.float32)
        stored = np.zeros((OUT, ggml.row_size(kind, WIDTH)), np.uint8)
        source, target = matrix.ctypes.data, stored.ctypes.data
        if kind.name.startswith("IQ"):  # their tables take a minute; two such bytes are below 1
            stored[:] = rng.integers(0, 0x3C, stored.shape)
        else:
            ggml.quantize_chunk(kind, source, target, 0, OUT, WIDTH, None)
        array = matrix if kind == Type.F32 else stored
        writer.add_tensor(kind.name, array, raw_dtype=GGMLQuantizationType(int(kind)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile(path) as opened:
        yield opened


@contextmanager
def weights_of(
    ggml: Ggml, file: GgufFile, name: str, threads: int = 1
) -> Iterator[tuple[Backend, Weights, Floats]]:
    """Give a CPU, the matrix as it lies in the file, and what gguf expands it to."""
    cpu = next(one for one in ggml.devices() if one.handle == ggml.cpu())
    info = file.tensors[name]
    with (
        closing(MappedTensors(file, [info])) as mapped,
        closing(Backend(ggml, cpu, threads)) as backend,
        closing(
            Weights(backend, file, mapped, [name], check=lambda info, view: None, rearrange=False)
        ) as weights,
    ):
        stored = np.frombuffer(mapped.view(info), np.uint8).reshape(OUT, -1)
        known = dequantize(stored, GGMLQuantizationType(info.type.code))
        yield backend, weights, np.asarray(known, np.float32).reshape(OUT, WIDTH)


def product(backend: Backend, weights: Weights, name: str, x: Floats, sessions: int = 1) -> Floats:
    """Multiply x [rows, WIDTH] as a layer does: [rows, OUT]."""
    ggml, rows = backend.ggml, len(x)
    part = PartInputs(0, rows // sessions, rows, 0, 0, {}, {}, is_long=False)
    with (
        Tensors(backend, 1) as inputs,
        Tensors(backend, _NODES, graph_nodes=_NODES) as between,
    ):
        given = ggml.new_tensor_2d(inputs.context, Type.F32, WIDTH, rows)
        inputs.allocate()
        write(ggml, given, x)
        graph = ggml.new_graph_custom(between.context, _NODES, False)
        config = cast(ModelConfig, None)  # a product asks nothing of it
        builder = LayerBuilder(
            ggml, between.context, graph, config, weights, [part] * sessions, 0, frozenset()
        )
        result = builder._product(name, given)
        ggml.set_output(result)
        ggml.build_forward_expand(graph, result)
        between.allocate()
        backend.compute(graph)
        out = np.empty((rows, OUT), np.float32)
        read(ggml, result, out)
    return out


def exactness(kind: Type) -> float:
    """Return the error of a long batch: of float32's sums, or of scales in float16."""
    return 3e-4 if kind in AS_Q8_0 and kind != Type.Q5_0 else 1e-6


def error(found: Floats, expected: Floats) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_long_batches_are_exact_and_short_ones_are_the_librarys(
    ggml: Ggml, file: GgufFile, kind: Type
) -> None:
    rows = np.random.default_rng(2).standard_normal((MOST, WIDTH)).astype(np.float32)
    with weights_of(ggml, file, kind.name) as (backend, weights, known):
        least = weights.expanded.get(kind.name)
        code = Type.Q8_0 if kind in AS_Q8_0 else kind
        assert least == expanded_from(ggml, code, is_coded=is_coded(kind))
        if least is None:
            assert error(product(backend, weights, kind.name, rows), rows @ known.T) < 2e-2
            return
        for count in (least, least + 1, MOST):
            found = product(backend, weights, kind.name, rows[:count])
            assert error(found, rows[:count] @ known.T) < exactness(kind)
        short = product(backend, weights, kind.name, rows[: least - 1])
        del weights.expanded[kind.name]
        np.testing.assert_array_equal(
            short, product(backend, weights, kind.name, rows[: least - 1])
        )


@pytest.mark.parametrize("kind", SECOND, ids=lambda kind: kind.name)
def test_where_memory_is_short_nothing_is_held_twice(
    ggml: Ggml, file: GgufFile, kind: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    if expanded_from(ggml, kind) is None:
        pytest.skip(f"ggml {ggml.version} is quick with {kind.name}")
    rows = np.random.default_rng(5).standard_normal((MOST, WIDTH)).astype(np.float32)
    found = []
    for is_made in (True, False):
        made = frozenset({kind} if is_made else ())
        monkeypatch.setattr(weights_module, "second_types", lambda _, made=made: made)
        with weights_of(ggml, file, kind.name) as (backend, weights, _):
            assert bool(weights.bytes) is is_made
            found.append(product(backend, weights, kind.name, rows))
            assert error(product(backend, weights, kind.name, rows[:4]), found[-1][:4]) < 2e-2
    assert error(found[0], found[1]) < exactness(kind)


@pytest.mark.parametrize("name", ["Q8_0", "Q5_1", "Q2_K", "IQ3_S"])
def test_two_threads_compute_the_same_bits(ggml: Ggml, file: GgufFile, name: str) -> None:
    rows = np.random.default_rng(3).standard_normal((MOST, WIDTH)).astype(np.float32)
    found = []
    for threads in (1, 2, 3, 5):
        with weights_of(ggml, file, name, threads) as (backend, weights, _):
            found.append(product(backend, weights, name, rows))
            assert len(weights.scratch.arrays) == (threads if name in weights.expanded else 0)
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])


def test_rows_of_several_sessions_are_the_librarys(ggml: Ggml, file: GgufFile) -> None:
    rows = np.random.default_rng(4).standard_normal((96, WIDTH)).astype(np.float32)
    with weights_of(ggml, file, "Q8_0") as (backend, weights, known):
        together = product(backend, weights, "Q8_0", rows, sessions=3)
        assert error(together, rows @ known.T) > 1e-4


@pytest.mark.parametrize("name", ["F16", "Q6_K", "Q5_1", "Q2_K", "IQ3_S"])
def test_what_is_not_finite_stays_so(ggml: Ggml, file: GgufFile, name: str) -> None:
    rows = np.full((64, WIDTH), np.inf, np.float32)
    with weights_of(ggml, file, name) as (backend, weights, _):
        assert not np.isfinite(product(backend, weights, name, rows)).any()


def test_a_failure_among_c_is_not_a_result(
    ggml: Ggml, file: GgufFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, told = np.ones((64, WIDTH), np.float32), list[Any]()

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(Scratch, "of", fail)
    with weights_of(ggml, file, "Q8_0") as (backend, weights, _):
        assert np.isnan(product(backend, weights, "Q8_0", rows)).all()
    assert [one.exc_type for one in told] == [MemoryError]


def test_without_blas_or_a_known_table_nothing_is_expanded(
    ggml: Ggml, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(expand, "has_blas", lambda: False)
        assert expanded_from(ggml, Type.F32) is None
    with monkeypatch.context() as patched:
        patched.setattr(ggml, "type_size", lambda code: 35)
        assert expanded_from(ggml, Type.Q8_0) is None
    for name in ("get_type_traits", "custom_4d"):
        with monkeypatch.context() as patched:
            patched.setattr(ggml, name, None)
            assert expanded_from(ggml, Type.Q8_0) is None
    with monkeypatch.context() as patched:
        patched.setattr(ggml, "version", "0.26.0")
        assert expanded_from(ggml, Type.Q6_K) is None
        assert expanded_from(ggml, Type.Q8_0) is not None


@pytest.mark.parametrize("width", [32, 576, 4096, 14_336, 2**17, 2**20])
def test_a_tile_is_bounded(width: int) -> None:
    rows = tile_rows(width)
    assert rows % 16 == 0
    assert 16 <= rows <= 128
    assert rows == 16 or rows * width <= 2**20


def test_the_numerics_name_blas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_library(None).chosen is None:
        pytest.skip("no ggml library loads here: pip install libggml-python")
    write_tiny_gguf(tmp_path / "m.gguf", tensor_type="F32", n_layers=1)
    names: list[Any] = []
    for blas in ("x1 openblas 1 zen", "x1 openblas 1 haswell"):
        monkeypatch.setattr(load_module, "blas_name", lambda said=blas: said)
        options = EngineOptions("ggml", "cpu", 1, None)
        engine = load_engine(tmp_path / "m.gguf", range(1), options, kv_budget_bytes=2**20)
        names.append(engine.numerics)
        engine.shut()
    assert names[0] != names[1]

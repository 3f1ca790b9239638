"""Which products round a row by how many stand beside it: few here, and any that does is found."""

import platform
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray

from p2pnode.engine.base import Engine, SessionRows
from p2pnode.engine.ggml import (
    ends as ends_module,
    engine as engine_module,
    load as load_module,
    step as step_module,
    weights as weights_module,
)
from p2pnode.engine.ggml.backend import Backend
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.functions import TensorHead
from p2pnode.engine.ggml.mapped_tensors import MappedTensors
from p2pnode.engine.ggml.stability import unstable_products
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.registry import EngineOptions, load_engine
from p2pnode.testing.tiny_gguf import write_tiny_gguf

TYPES: Final = (Type.F32, Type.F16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q6_K)
WIDTHS: Final = (256, 512, 768)  # whole blocks of the K types; not all a multiple of every tile
OUT: Final = 96
_EXPERTS: Final = 2


@contextmanager
def products(
    ggml: Ggml, path: Path, *, rearrange: bool = True
) -> Iterator[tuple[Backend, Weights]]:
    """Give a CPU, and the weights of a file as an engine holds them."""
    cpu = next(one for one in ggml.devices() if one.handle == ggml.cpu())
    with GgufFile(path) as file, closing(MappedTensors(file, file.tensors.values())) as mapped:
        backend = Backend(ggml, cpu)
        weights = Weights(
            backend,
            file,
            mapped,
            file.tensors,
            check=lambda info, view: None,
            rearrange=rearrange,
        )
        try:
            yield backend, weights
        finally:
            weights.close()
            backend.close()


def quantised(ggml: Ggml, matrix: NDArray[np.float32], kind: int) -> NDArray[np.uint8]:
    """Return the bytes of [..., out, in] in another type."""
    stored = np.zeros((*matrix.shape[:-1], ggml.row_size(kind, matrix.shape[-1])), np.uint8)
    rows, width = matrix.size // matrix.shape[-1], matrix.shape[-1]
    source, target = matrix.ctypes.data, stored.ctypes.data
    ggml.quantize_chunk(kind, source, target, 0, rows, width, None)
    return stored


def write(ggml: Ggml, path: Path, width: int, *, experts: bool = False) -> list[str]:
    """Write a matrix of each type, [OUT, width] or several such; return their names."""
    writer = GGUFWriter(path, "llama")
    rng = np.random.default_rng(width)
    lead = (_EXPERTS, OUT) if experts else (OUT,)
    for kind in TYPES:
        matrix = rng.standard_normal((*lead, width)).astype(np.float32)
        encoding = GGMLQuantizationType(int(kind))
        stored = quantised(ggml, matrix, kind)
        writer.add_tensor(f"{kind.name}.weight", stored, raw_dtype=encoding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [f"{kind.name}.weight" for kind in TYPES]


@pytest.mark.parametrize("rearrange", [True, False])
@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_products_of_the_default_library_do_not_depend_on_the_rows_beside(
    ggml: Ggml, tmp_path: Path, width: int, experts: bool, rearrange: bool
) -> None:
    """But for Q4_K rearranged on AVX2, where four rows and more have a kernel of their own."""
    if not ggml.provider.name.startswith("libggml") or platform.machine() != "x86_64":
        pytest.skip(f"tried with libggml on x86-64, not {ggml.provider.name} on this CPU")
    names = write(ggml, tmp_path / "m.gguf", width, experts=experts)
    with products(ggml, tmp_path / "m.gguf", rearrange=rearrange) as (backend, weights):
        assert sorted(weights.products) == sorted(names)
        known = {"Q4_K.weight"} if weights.products["Q4_K.weight"] is not None else set()
        assert unstable_products(backend, weights) <= known


def in_halves(ggml: Ggml, kind: Type, least: int) -> Callable[[int, int, int], int]:
    """Return a product that adds up two halves of a row, where at least so many stand together."""
    whole = ggml.mul_mat

    def product(context: int, weight: int, x: int) -> int:
        head, rows = TensorHead.from_address(weight), TensorHead.from_address(x)
        if head.type != kind or rows.ne[1] < least:
            return int(whole(context, weight, x))
        half = head.ne[0] // 2
        parts = []
        for number in range(2):
            shift = number * ggml.row_size(head.type, half)
            left = ggml.view_2d(context, weight, half, head.ne[1], head.nb[1], shift)
            right = ggml.view_2d(context, x, half, rows.ne[1], rows.nb[1], number * half * 4)
            parts.append(whole(context, left, ggml.cont(context, right)))
        return int(ggml.add(context, *parts))

    return product


@pytest.mark.parametrize("least", [2, 3, 8, 33, 70])
@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0])
def test_a_product_that_depends_on_the_rows_beside_is_found(
    ggml: Ggml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Type, least: int
) -> None:
    write(ggml, tmp_path / "m.gguf", 256)
    with products(ggml, tmp_path / "m.gguf", rearrange=False) as (backend, weights):
        monkeypatch.setattr(ggml, "mul_mat", in_halves(ggml, kind, least))
        assert unstable_products(backend, weights) == {f"{kind.name}.weight"}


def test_all_of_its_kind_are_found_with_it(
    ggml: Ggml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", tensor_type="F32", n_layers=2)
    with products(ggml, tmp_path / "m.gguf", rearrange=False) as (backend, weights):
        monkeypatch.setattr(ggml, "mul_mat", in_halves(ggml, Type.F32, 5))
        assert unstable_products(backend, weights) == set(weights.products)


@pytest.mark.parametrize("noticed", [True, False])
def test_such_a_product_is_computed_for_each_session_by_itself(
    ggml: Ggml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """Where it was not noticed, sessions beside each other change each other's bits."""
    write_tiny_gguf(tmp_path / "m.gguf", tensor_type="F32", n_layers=2)
    monkeypatch.setattr(weights_module, "multiplies_in", lambda *_: False)
    monkeypatch.setattr(step_module, "_LAYER_NODES", 200)  # halves are more nodes
    monkeypatch.setattr(ggml, "mul_mat", in_halves(ggml, Type.F32, 5))
    if not noticed:
        monkeypatch.setattr(engine_module, "unstable_products", lambda *_: frozenset())
    engine = load_engine(tmp_path / "m.gguf", range(2), EngineOptions("ggml", "cpu", 1))
    assert is_alone(engine, rows=3) is noticed


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_sessions_of_a_k_type_change_nothing_of_each_other(
    ggml: Ggml, tmp_path: Path, rows: int
) -> None:
    write_tiny_gguf(
        tmp_path / "m.gguf",
        tensor_type="Q4_K",
        n_layers=2,
        d_model=256,
        quantize=lambda weight, kind: quantised(ggml, weight, int(kind)),
    )
    engine = load_engine(tmp_path / "m.gguf", range(2), EngineOptions("ggml", "cpu", 1))
    assert is_alone(engine, rows)


def test_many_sessions_find_room_where_each_is_computed_by_itself(
    ggml: Ggml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ggml ends the process where a graph has too many nodes."""
    write_tiny_gguf(tmp_path / "m.gguf", tensor_type="Q8_0", n_layers=2, n_kv_heads=4)
    monkeypatch.setattr(engine_module, "unstable_products", lambda _, weights: {*weights.products})
    engine = load_engine(tmp_path / "m.gguf", range(2), EngineOptions("ggml", "cpu", 1))
    assert is_alone(engine, rows=1, sessions=64)


def is_alone(engine: Engine, rows: int, sessions: int = 5) -> bool:
    """Whether sessions get the same bits beside each other as alone; shuts the engine."""
    parts = [
        SessionRows(bytes([number]), np.arange(rows) + 3 * number, 0) for number in range(sessions)
    ]
    together = engine.forward_many(range(2), parts)
    alone = []
    for part in parts:
        engine.close(part.session)
        alone += engine.forward(part.session, range(2), [part.rows], 0)
    engine.shut()
    return all(np.array_equal(ours, theirs) for ours, theirs in zip(together, alone, strict=True))


# The head


def head_rows(engine: Engine) -> tuple[bool, bool]:
    """Return whether several rows are multiplied at once, and get what each gets alone."""
    rows = np.random.default_rng(3).standard_normal((19, engine.info.d_model)).astype(np.float32)
    alone = np.concatenate([engine.logits(row[None]) for row in rows])
    same = all(np.array_equal(engine.logits(rows[:n]), alone[:n]) for n in range(1, 20))
    assert isinstance(engine, GgmlEngine)
    assert engine._head is not None
    together = engine._head._most > 1
    engine.shut()
    return together, same


@pytest.mark.parametrize("tensor_type", ["F32", "F16", "Q8_0"])
def test_a_head_gives_rows_together_what_it_gives_each_alone(
    tmp_path: Path, tensor_type: str
) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", tensor_type=tensor_type, n_layers=2)
    engine = load_engine(tmp_path / "m.gguf", range(2), EngineOptions("ggml", "cpu", 1))
    assert head_rows(engine)[1]


@pytest.mark.parametrize("noticed", [True, False])
def test_a_head_that_depends_on_the_rows_beside_multiplies_each_alone(
    ggml: Ggml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    write_tiny_gguf(tmp_path / "m.gguf", tensor_type="F32", n_layers=2)
    monkeypatch.setattr(weights_module, "multiplies_in", lambda *_: False)
    monkeypatch.setattr(ends_module, "_NODES", 64)  # halves are more nodes
    monkeypatch.setattr(ggml, "mul_mat", in_halves(ggml, Type.F32, 5))
    if not noticed:
        monkeypatch.setattr(load_module, "is_head_stable", lambda *_: True)
    engine = load_engine(tmp_path / "m.gguf", range(1, 2), EngineOptions("ggml", "cpu", 1))
    assert head_rows(engine) == (not noticed, noticed)

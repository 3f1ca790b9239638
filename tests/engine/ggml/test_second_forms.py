"""Models whose matrices are held a second time: split or whole, and whatever goes wrong."""

import os
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from p2pnode.engine.ggml import (
    coded as coded_module,
    expand as expand_module,
    load as load_module,
    weights as weights_module,
)
from p2pnode.engine.ggml.backend import Backend
from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.coded import ROUNDED, is_coded
from p2pnode.engine.ggml.constants import Type
from p2pnode.engine.ggml.engine import GgmlEngine
from p2pnode.engine.ggml.expand import PRODUCT_RULES, expanded_from
from p2pnode.engine.ggml.load import load_ggml
from p2pnode.engine.ggml.mapped_tensors import MappedTensors
from p2pnode.engine.ggml.probe import Candidate
from p2pnode.engine.ggml.second_forms import second_bytes, second_types, split_bytes
from p2pnode.engine.ggml.weights import Weights
from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.gguf_header import TENSOR_TYPES
from p2pnode.engine.hash_tree import HashTree, hash_file
from p2pnode.errors import CapacityError
from p2pnode.node.machine_memory import Memory, fitting
from p2pnode.node.model_facts import facts_of
from p2pnode.testing.random_blocks import random_blocks, set_scales
from p2pnode.testing.tiny_gguf import write_tiny_gguf

KINDS: Final = tuple(sorted(coded_module._UNPACK))
CODED: Final = tuple(kind for kind in KINDS if is_coded(kind))
LAYERS: Final = 3  # so that each part computes with one thread and with two
BATCHES: Final = (33, 64, 130)
SHORT: Final = (1, 4)
named = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def quantize_by(
    ggml: Ggml, weight: npt.NDArray[np.float32], kind: GGMLQuantizationType
) -> npt.NDArray[np.uint8]:
    rows, width = weight.shape
    if kind.name.startswith("IQ"):  # the library's tables for them take a minute
        of, rng = TENSOR_TYPES[int(kind)], np.random.default_rng(rows)
        return random_blocks(of, weight.size // of.block, rng).reshape(rows, -1)
    stored = np.zeros((rows, ggml.row_size(int(kind), width)), np.uint8)
    source, target = weight.ctypes.data, stored.ctypes.data
    ggml.quantize_chunk(int(kind), source, target, 0, rows, width, None)
    return stored


@pytest.fixture(scope="module")
def models(ggml: Ggml, tmp_path_factory: pytest.TempPathFactory) -> dict[Type, Path]:
    folder, paths = tmp_path_factory.mktemp("second"), {}
    for kind in KINDS:
        paths[kind] = folder / f"{kind.name}.gguf"
        write(ggml, paths[kind], kind)
    return paths


@pytest.fixture
def is_made(ggml: Ggml, kind: Type) -> None:
    """Skip types of which the library's own kernels are as fast."""
    if kind in CODED and expanded_from(ggml, kind, is_coded=True) is None:
        pytest.skip(f"ggml {ggml.version} is quick with {kind.name}")


def write(ggml: Ggml, path: Path, *kinds: Type, edit: Any = None) -> None:
    """Write a model of random weights, the same each time."""
    write_tiny_gguf(
        path,
        tensor_type=" ".join(kind.name for kind in kinds),
        n_layers=LAYERS,
        d_model=256,
        quantize=partial(quantize_by, ggml),
        edit=edit,
    )


def tree_of(path: Path) -> HashTree:
    with GgufFile(path) as file:
        return hash_file(file)


@contextmanager
def loaded(
    library: Candidate, path: Path, layers: range = range(LAYERS), threads: int = 1
) -> Iterator[GgmlEngine]:
    engine = load_ggml(
        library, path, layers, tree_of(path), threads=threads, kv_budget_bytes=1 << 24
    )
    try:
        yield engine
    finally:
        engine.shut()


def run(engine: GgmlEngine, states: list[Any]) -> list[Any]:
    """Return what each batch of a session becomes."""
    at, results = 0, []
    for state in states:
        results += engine.forward(b"s", engine.layers, [state], at)
        at += len(state)
    return results


def test_a_split_anywhere_equals_the_whole_with_one_thread_or_two(
    library: Candidate, ggml: Ggml, tmp_path: Path
) -> None:
    path, rng = tmp_path / "m.gguf", np.random.default_rng(3)
    write(ggml, path, *KINDS)
    with GgufFile(path) as file:
        layers = [info for info in file.tensors.values() if second_bytes(info)]
        assert {info.type.code for info in layers} == {*KINDS} == second_types(layers)
    prompt = [rng.integers(0, 256, count) for count in (*BATCHES, *SHORT)]
    with loaded(library, path) as whole:
        expected = run(whole, prompt)
        numerics = whole.numerics
        assert "blas~" in numerics
    for cut in range(1, LAYERS):
        with (
            loaded(library, path, range(cut), cut) as first,
            loaded(library, path, range(cut, LAYERS), 3 - cut) as last,
        ):
            assert first.numerics == last.numerics == numerics
            for found, known in zip(run(last, run(first, prompt)), expected, strict=True):
                np.testing.assert_array_equal(found, known)


@pytest.mark.parametrize("kind", [Type.Q5_0, Type.IQ3_S, Type.IQ2_S], ids=lambda kind: kind.name)
def test_without_blas_the_numerics_say_what_is_rounded(
    library: Candidate, models: dict[Type, Path], kind: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expand_module, "has_blas", lambda: False)
    with loaded(library, models[kind], range(1, 2)) as engine:
        assert "blas~" not in engine.numerics
        assert (f"rules~{PRODUCT_RULES}" in engine.numerics) == (kind in ROUNDED)


MIXTURES: Final = (
    (Type.Q4_K, Type.IQ3_XXS, Type.Q4_K),
    (Type.IQ4_NL, Type.Q6_K, Type.Q4_0),
    (Type.Q4_0, Type.Q4_0, Type.Q4_1),
    (Type.Q4_0, Type.Q4_0, Type.Q4_0),
)


@pytest.mark.parametrize("kinds", MIXTURES, ids=lambda kinds: "-".join(one.name for one in kinds))
def test_each_part_of_a_mixture_is_named_as_the_whole_is(
    library: Candidate, ggml: Ggml, kinds: tuple[Type, ...], tmp_path: Path
) -> None:
    """Though BLAS computes in one of its layers alone, or in none."""
    path = tmp_path / "m.gguf"
    write(ggml, path, kinds[0], *(kind for kind in kinds for _ in range(7)))  # the embedding first
    with GgufFile(path) as file:
        for layer, kind in enumerate(kinds):
            of_layer = [info for name, info in file.tensors.items() if f"blk.{layer}." in name]
            assert {info.type.code for info in of_layer if len(info.shape) == 2} == {kind}
    numerics = set[str]()
    for start in range(LAYERS):
        for stop in range(start + 1, LAYERS + 1):
            with loaded(library, path, range(start, stop)) as engine:
                numerics.add(engine.numerics)
    assert len(numerics) == 1


def spoil(path: Path, layer: int, value: float) -> None:
    """Make the scales of one row's first block of a layer's matrix something else."""
    with GgufFile(path) as file:
        info = file.tensors[f"blk.{layer}.ffn_down.weight"]
    with path.open("r+b") as stored:
        stored.seek(info.offset)
        block = np.frombuffer(stored.read(info.type.size), np.uint8).reshape(1, -1).copy()
        set_scales(info.type, block, value)
        stored.seek(info.offset)
        stored.write(block.tobytes())


@named
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_scales_that_are_no_numbers_make_no_numbers_of_any_batch(
    library: Candidate,
    models: dict[Type, Path],
    kind: Type,
    value: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those do that a file may hold, and that become so: of 31 times a scale of 65,000."""
    monkeypatch.setattr(load_module, "check_weights", lambda *_: None)
    path = tmp_path / "m.gguf"
    path.write_bytes(models[kind].read_bytes())
    spoil(path, 0, value)
    with loaded(library, path) as engine:
        for count in (1, 4, *BATCHES):
            [found] = run(engine, [np.arange(count) % 256])
            engine.close(b"s")
            assert not np.isfinite(found).all(axis=1).any()


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.name)  # Q8_0 asks the library
@pytest.mark.usefixtures("is_made")
def test_without_memory_for_them_it_says_so(
    library: Candidate, models: dict[Type, Path], kind: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = np.empty

    def refuse(shape: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(shape, int) and shape > 10_000:
            raise MemoryError
        return real(shape, *arguments, **options)

    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(CapacityError, match="MiB of memory"), loaded(library, models[kind]):
        pass


@named
@pytest.mark.usefixtures("is_made")
def test_without_memory_to_unpack_them_it_says_so(
    library: Candidate, models: dict[Type, Path], kind: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setitem(coded_module._UNPACK, kind, refuse)
    with pytest.raises(CapacityError), loaded(library, models[kind]):
        pass


@named
@pytest.mark.usefixtures("is_made")
def test_a_file_that_is_written_to_while_they_are_made_is_what_it_was(
    library: Candidate,
    models: dict[Type, Path],
    kind: Type,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    prompt = [np.arange(count) % 256 for count in BATCHES]
    with loaded(library, models[kind]) as engine:
        expected = run(engine, prompt)
    path = tmp_path / "m.gguf"
    path.write_bytes(models[kind].read_bytes())
    made = list[str]()

    def meanwhile(name: str) -> Any:
        real = getattr(weights_module, name)

        def make(*arguments: Any) -> Any:
            if len(made) == 3:
                with path.open("r+b") as file:
                    file.write(b"\xff" * path.stat().st_size)
            if len(made) == 6:
                os.truncate(path, 100)
            made.append(name)
            return real(*arguments)

        return make

    for name in ("coded", "put_as_q8_0"):
        monkeypatch.setattr(weights_module, name, meanwhile(name))
    with loaded(library, path) as engine:
        assert len(made) == 7 * LAYERS
        for found, known in zip(run(engine, prompt), expected, strict=True):
            np.testing.assert_array_equal(found, known)


@named
def test_tensors_need_not_be_aligned(
    library: Candidate, ggml: Ggml, models: dict[Type, Path], kind: Type, tmp_path: Path
) -> None:
    path, prompt = tmp_path / "m.gguf", [np.arange(count) % 256 for count in BATCHES]
    with loaded(library, models[kind]) as engine:
        expected = run(engine, prompt)
    offsets = list[int]()
    for more in (0, 8):

        def shift(writer: Any, more: int = more) -> None:
            writer.add_custom_alignment(8)
            writer.add_description("x" * more)

        if not any(offsets):
            write(ggml, path, kind, edit=shift)
            with GgufFile(path) as file:
                tensors = [info for info in file.tensors.values() if second_bytes(info)]
                offsets = [info.offset % 32 for info in tensors]
    assert any(offsets)
    with loaded(library, path) as engine:
        for found, known in zip(run(engine, prompt), expected, strict=True):
            np.testing.assert_array_equal(found, known)


def test_what_a_header_claims_is_counted_and_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    """A file of holes that claims 275 GB: Q4_K enough that a second form of its Q6_K is allowed."""
    path, rows, width = tmp_path / "m.gguf", 2**20, 2**15
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    for name, kind in (("a", Type.Q6_K), *((letter, Type.Q4_K) for letter in "bcdefgh")):
        row, raw = width // 256 * TENSOR_TYPES[kind].size, GGMLQuantizationType(int(kind))
        claimed = f"blk.1.{name}.weight", (rows, row), np.dtype("u1"), rows * row, raw
        writer.add_tensor_info(*claimed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, 2**40)
    tracemalloc.start()
    facts = facts_of(path, with_words=False)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert facts.layer_second_bytes[-1] == rows * width // 32 * 40
    assert most < 2**24
    assert not fitting(facts, "ggml", 0, Memory(2**34, 2**34)).layers


def weights_of(ggml: Ggml, file: GgufFile, names: list[str], stack: ExitStack) -> Weights:
    cpu = next(one for one in ggml.devices() if one.handle == ggml.cpu())
    mapped = MappedTensors(file, [file.tensors[name] for name in names])
    stack.enter_context(closing(mapped))
    backend = stack.enter_context(closing(Backend(ggml, cpu, 1)))
    return stack.enter_context(
        closing(Weights(backend, file, mapped, names, check=lambda info, view: None))
    )


def matrices(file: GgufFile) -> list[str]:
    return [info.name for info in file.tensors.values() if len(info.shape) == 2]


@named
@pytest.mark.usefixtures("is_made")
def test_what_is_counted_of_each_kind_is_what_is_made(
    ggml: Ggml, models: dict[Type, Path], kind: Type
) -> None:
    with GgufFile(models[kind]) as file, ExitStack() as stack:
        weights = weights_of(ggml, file, matrices(file), stack)
        facts = facts_of(models[kind], with_words=False)
        assert weights.bytes == sum(facts.layer_second_bytes) > sum(facts.layer_bytes)


def test_what_q4_1_takes_besides_is_counted_and_the_head_has_none(
    ggml: Ggml, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    write_tiny_gguf(path, tensor_type="Q4_1", n_layers=1, d_model=256)
    with GgufFile(path) as file, ExitStack() as stack:
        names = matrices(file)
        weights = weights_of(ggml, file, names, stack)
        if not weights.splits:
            pytest.skip("this CPU has a quick kernel for Q4_1")
        assert set(weights.splits) == {name for name in names if name.startswith("blk.")}
        counted = sum(split_bytes(file.tensors[name]) for name in names)
        assert counted == weights.bytes == facts_of(path, with_words=False).layer_second_bytes[0]

"""The binding, on whichever ggml library this environment has installed."""

import ast
import ctypes
import ctypes.util
import gc
from pathlib import Path

import numpy as np
import pytest

from p2pnode.engine.ggml import binding
from p2pnode.engine.ggml.binding import Ggml, load, parse_version
from p2pnode.engine.ggml.constants import STATUS_SUCCESS, DeviceType, Type
from p2pnode.engine.ggml.functions import (
    LETTERS,
    OF_THE_CPU,
    OPTIONAL,
    REQUIRED,
    InitParams,
    TensorHead,
    ThreadpoolParams,
)
from p2pnode.engine.ggml.providers import Provider
from p2pnode.errors import EngineError

_ROOT = Path(__file__).parents[3]


def test_every_signature_is_known_and_bound_once() -> None:
    tables = (REQUIRED, OPTIONAL, OF_THE_CPU)
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    for table in tables:
        assert all(set(signature) <= set(LETTERS) for signature in table.values())


def test_what_a_library_must_have_is_what_is_called(ggml: Ggml) -> None:
    """One that lacks a function that nobody calls is not refused for it."""
    named, called = set[str](), set[str]()
    for folder in ("p2pnode/engine/ggml", "p2pnode/bench/engine", "tests/engine/ggml"):
        for path in (_ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute):
                    named.add(node.attr)
                    if ast.unparse(node.value).split(".")[-1] in {"ggml", "_ggml"}:
                        called.add(node.attr)
                elif isinstance(node, ast.Constant) and path.name != "functions.py":
                    named.add(str(node.value))  # by getattr
    bound = {*REQUIRED, *OPTIONAL, *OF_THE_CPU}
    assert bound - named - {f"new_tensor_{count}d" for count in range(1, 5)} == set()
    assert {name for name in called - bound if not hasattr(ggml, name)} <= {"binding", "__name__"}


def test_a_product_is_computed(ggml: Ggml) -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((3, 32), np.float32)  # [out, in]
    rows = rng.standard_normal((2, 32), np.float32)  # [tokens, in]
    size = 16 * ggml.tensor_overhead() + ggml.graph_overhead_custom(16, False)
    ctx = ggml.init(InitParams(size, None, True))
    a = ggml.new_tensor_2d(ctx, Type.F32, 32, 3)
    b = ggml.new_tensor_2d(ctx, Type.F32, 32, 2)
    product = ggml.mul_mat(ctx, a, b)
    assert list(TensorHead.from_address(product).ne) == [3, 2, 1, 1]
    assert list(TensorHead.from_address(product).nb) == [4, 12, 24, 24]
    graph = ggml.new_graph_custom(ctx, 16, False)
    ggml.build_forward_expand(graph, product)
    assert ggml.graph_n_nodes(graph) == 1
    backend = ggml.backend_dev_init(ggml.cpu(), None)
    buffer = ggml.backend_alloc_ctx_tensors(ctx, backend)
    assert TensorHead.from_address(a).buffer == buffer
    ggml.backend_tensor_set(a, weights.ctypes.data, 0, weights.nbytes)
    ggml.backend_tensor_set(b, rows.ctypes.data, 0, rows.nbytes)
    assert ggml.backend_graph_compute(backend, graph) == STATUS_SUCCESS
    result = np.empty((2, 3), np.float32)
    ggml.backend_tensor_get(product, result.ctypes.data, 0, result.nbytes)
    np.testing.assert_allclose(result, rows @ weights.T, rtol=1e-5, atol=1e-5)
    ggml.backend_buffer_free(buffer)
    ggml.backend_free(backend)
    ggml.free(ctx)


def test_a_threadpool_is_made_from_the_layout_that_is_known(ggml: Ggml) -> None:
    params = ThreadpoolParams()
    ggml.threadpool_params_init(ctypes.addressof(params), 2)
    assert (params.n_threads, params.strict_cpu, params.paused) == (2, False, False)
    assert 0 <= params.poll <= 100
    assert not any(params.spare)  # a library that knows more fields writes behind these
    pool = ggml.threadpool_new(ctypes.addressof(params))
    backend = ggml.backend_dev_init(ggml.cpu(), None)
    ggml.backend_cpu_set_threadpool(backend, pool)
    ggml.backend_set_n_threads(backend, 2)
    ggml.backend_free(backend)
    ggml.threadpool_free(pool)


def test_what_rearranges_weights_is_asked_before_they_are_put_there(ggml: Ggml) -> None:
    ctx = ggml.init(InitParams(16 * ggml.tensor_overhead(), None, True))
    a = ggml.new_tensor_2d(ctx, Type.F32, 256, 16)
    product = ggml.mul_mat(ctx, a, ggml.new_tensor_2d(ctx, Type.F32, 256, 2))
    for kind in ggml.extra_buffer_types():
        assert not ggml.takes(ggml.cpu(), product, a, kind)
        assert TensorHead.from_address(a).buffer is None
    assert ggml.takes(ggml.cpu(), product, a, ggml.backend_cpu_buffer_type())
    ggml.free(ctx)


def test_types_have_the_names_and_sizes_that_files_count_on(ggml: Ggml) -> None:
    sizes = {Type.F16: (1, 2), Type.Q4_0: (32, 18), Type.Q4_1: (32, 20), Type.Q8_0: (32, 34)}
    sizes |= {Type.Q4_K: (256, 144), Type.Q6_K: (256, 210), Type.IQ4_XS: (256, 136)}
    for kind, expected in sizes.items():
        assert (ggml.blck_size(kind), ggml.type_size(kind)) == expected
    for kind in Type:
        assert ggml.type_name(kind).decode().lower() == kind.name.lower()


def test_the_cpu_says_what_decides_its_bits(ggml: Ggml) -> None:
    assert ggml.numerics().startswith(f"ggml {ggml.version}/")
    assert ggml.numerics() == ggml.numerics()
    assert ggml.features()
    cpu = next(device for device in ggml.devices() if device.type == DeviceType.CPU)
    assert cpu.handle == ggml.cpu()
    assert 0 < cpu.free <= cpu.total


def test_a_process_has_one_library(ggml: Ggml) -> None:
    assert load(ggml.provider) is ggml
    with pytest.raises(EngineError, match="already computes"):
        load(Provider("another", (Path("/nowhere/libggml.so"),)))


def test_a_library_without_the_functions_is_refused_by_their_names() -> None:
    libc = ctypes.util.find_library("c")
    if libc is None:
        pytest.skip("no C library is found by name here")
    with pytest.raises(EngineError, match=r"lacks ggml_init, ggml_free"):
        Ggml(Provider("the C library", (Path(libc),)))


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "libggml.so"
    path.write_bytes(b"no library")
    with pytest.raises(EngineError, match=r"libggml\.so of a folder cannot be loaded"):
        Ggml(Provider("a folder", (path,)))


@pytest.mark.parametrize(
    ("version", "parsed"),
    [
        ("0.13.0", (0, 13)),
        ("0.26.0-dev", (0, 26)),
        ("1.2", (1, 2)),
        ("", (0, 0)),
        ("unknown", (0, 0)),
        ("0.x", (0, 0)),
    ],
)
def test_versions(version: str, parsed: tuple[int, int]) -> None:
    assert parse_version(version) == parsed


def test_a_library_older_than_any_that_was_tried_is_refused(
    ggml: Ggml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "LEAST_VERSION", (99, 1))
    with pytest.raises(EngineError, match=r"holds ggml 0\.\d+.*p2pnode needs 99\.1 or newer"):
        Ggml(ggml.provider)
    gc.collect()
    assert ggml.backend_load(b"/nowhere/libggml-cpu.so") is None  # logs to what was given up


def test_what_the_library_logs_is_kept_and_bounded(ggml: Ggml) -> None:
    kept = list(ggml.warnings)
    log = ggml._log_callback
    log(1, b"not a warning", None)
    for index in range(100):
        log(3, f"line {index}\n".encode() + b"\xff" * 10_000, None)
    assert len(ggml.warnings) == 20
    assert ggml.warnings[-1].startswith("line 99")
    assert all(len(line) <= 500 for line in ggml.warnings)
    ggml.warnings.clear()
    ggml.warnings.extend(kept)


def test_a_cpu_back_end_is_the_one_that_rates_itself_highest(ggml: Ggml) -> None:
    modules = ggml.provider.cpu_modules
    if len(modules) < 2:
        assert ggml.variant == ""
        return
    assert f"ggml-cpu-{ggml.variant}" in {path.stem.removeprefix("lib") for path in modules}
    assert ggml.numerics() == f"ggml {ggml.version}/{ggml.variant}"

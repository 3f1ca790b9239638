"""ggml multiplies by weights where a file has them mapped, while the file is written to."""

import os
from pathlib import Path

import numpy as np
import pytest

from p2pnode.engine.ggml.binding import Ggml
from p2pnode.engine.ggml.constants import STATUS_SUCCESS, USAGE_WEIGHTS, Type
from p2pnode.engine.ggml.functions import InitParams
from p2pnode.engine.ggml.mapping import MappedFile

WIDTH, ROWS, OFFSET = 256, 64, 4096 + 32  # GGUF aligns tensors to 32 bytes


@pytest.mark.parametrize("lease", [True, False])
def test_weights_are_used_where_they_lie(ggml: Ggml, tmp_path: Path, lease: bool) -> None:
    weights = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
    stored = np.zeros((ROWS, ggml.row_size(Type.Q8_0, WIDTH)), np.uint8)
    source, target = weights.ctypes.data, stored.ctypes.data
    ggml.quantize_chunk(Type.Q8_0, source, target, 0, ROWS, WIDTH, None)
    path = tmp_path / "weights"
    path.write_bytes(bytes(OFFSET) + stored.tobytes() + bytes(100))
    row = np.ones((1, WIDTH), np.float32)

    size = 16 * ggml.tensor_overhead() + ggml.graph_overhead_custom(16, False)
    in_file, ctx = (ggml.init(InitParams(size, None, True)) for _ in range(2))
    a = ggml.new_tensor_2d(in_file, Type.Q8_0, WIDTH, ROWS)
    x = ggml.new_tensor_2d(ctx, Type.F32, WIDTH, 1)
    product = ggml.mul_mat(ctx, a, x)
    graph = ggml.new_graph_custom(ctx, 16, False)
    ggml.build_forward_expand(graph, product)
    backend = ggml.backend_dev_init(ggml.cpu(), None)
    ggml.backend_set_n_threads(backend, 1)

    with MappedFile(path, [(OFFSET, stored.nbytes)], lease=lease) as mapped:
        ((start, length),) = mapped.areas
        buffer = ggml.backend_cpu_buffer_from_ptr(start, length)
        ggml.backend_buffer_set_usage(buffer, USAGE_WEIGHTS)
        address = mapped.address(OFFSET, stored.nbytes)
        assert ggml.backend_tensor_alloc(buffer, a, address) == STATUS_SUCCESS
        assert ggml.get_data(a) == address
        others = ggml.backend_alloc_ctx_tensors(ctx, backend)
        ggml.backend_tensor_set(x, row.ctypes.data, 0, row.nbytes)

        def compute() -> bytes:
            assert ggml.backend_graph_compute(backend, graph) == STATUS_SUCCESS
            result = np.empty(ROWS, np.float32)
            ggml.backend_tensor_get(product, result.ctypes.data, 0, result.nbytes)
            np.testing.assert_allclose(result, weights.sum(axis=1), rtol=1e-2)
            return result.tobytes()

        before = compute()
        os.truncate(path, 10)
        assert mapped.is_copied
        assert compute() == before
        assert mapped.is_intact
        for one in (others, buffer):
            ggml.backend_buffer_free(one)
    ggml.backend_free(backend)
    ggml.free(ctx)
    ggml.free(in_file)

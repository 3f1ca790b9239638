"""A Q4_1 matrix in two forms is one matrix; what it gives is tested in the conformance suite."""

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hypothesis import given, strategies as st

from p2pnode.engine.ggml.split import BLOCK, split_blocks


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_matrix_is_its_blocks_plus_the_rest(rows: int, blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = rng.integers(0, 256, (rows, blocks, 20), np.uint8)
    scales = rng.standard_normal((rows, blocks, 2)).astype(np.float16)
    stored[:, :, :4] = scales.view(np.uint8)
    width = blocks * BLOCK
    whole = dequantize(stored.reshape(rows, -1), GGMLQuantizationType.Q4_1)  # [rows, width]
    plain, rest = split_blocks(memoryview(stored.tobytes()), width)
    first = dequantize(plain.reshape(rows, -1), GGMLQuantizationType.Q4_0)
    np.testing.assert_allclose(
        first.reshape(rows, blocks, BLOCK) + rest.T[:, :, None],
        whole.reshape(rows, blocks, BLOCK),
        rtol=1e-5,
        atol=1e-5,
    )

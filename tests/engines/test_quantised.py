"""Matrices in ggml's own encodings: read alike by ggml and gguf, and computed alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engines.needs import require_references

require_references()

import gguf  # noqa: E402  after the skip

from tests.engines.quantised import KINDS  # noqa: E402
from tests.engines.recipes import LONG  # noqa: E402
from tests.engines.reference import QUANTISED_CASES, Case, figures, libllama  # noqa: E402

ROUGHEST = {
    "F16": 3e-4,
    "BF16": 3e-3,
    "Q8_0": 6e-3,
    "Q6_K": 0.02,
    "Q5_0": 0.05,
    "Q5_1": 0.04,
    "Q5_K": 0.04,
    "Q4_0": 0.1,
    "Q4_1": 0.08,
    "Q4_K": 0.08,
    "IQ4_NL": 0.08,
    "IQ4_XS": 0.08,
    "MXFP4": 0.13,
    "NVFP4": 0.13,
    "Q3_K": 0.16,
    "IQ3_S": 0.18,
    "IQ3_XXS": 0.23,
    "Q2_K": 0.3,
    "IQ2_S": 0.3,
    "IQ2_XS": 0.32,
    "IQ2_XXS": 0.4,
    "IQ1_M": 0.62,
    "IQ1_S": 0.52,
    "TQ1_0": 0.85,
    "TQ2_0": 0.85,
}
"""The error of normal random rows that each type may make, against their own size."""


@pytest.mark.parametrize("kind", KINDS)
def test_gguf_reads_what_ggml_wrote(kind: str, record_property: Any) -> None:
    rows = np.random.default_rng(7).standard_normal((16, 512), dtype=np.float32)
    encoding = gguf.GGMLQuantizationType[kind]
    written = libllama().quantize(rows, encoding)
    read = gguf.dequantize(written, encoding)
    np.testing.assert_array_equal(read, libllama().dequantize(written, encoding, rows.shape[-1]))
    error = float(np.sqrt(((read - rows) ** 2).mean() / (rows**2).mean()))
    record_property("figures", f"error {error:.4f}  {8 * written.nbytes / rows.size:.2f} bits")
    assert error < ROUGHEST[kind]


@pytest.mark.parametrize("case", QUANTISED_CASES, ids=str)
def test_libllama_computes_what_the_matrices_say(
    case: Case, models: Path, record_property: Any
) -> None:
    ids = case.ids(LONG)
    expected, found = case.reference(ids), case.libllama(models, ids)
    measured = figures(expected, found)
    record_property("figures", str(measured))
    experts = case.recipe.architecture == "qwen3moe"  # rounding picks another expert in some rows
    assert measured.kl < (0.1 if experts else 0.015)

"""Checkpoints whose matrices are kept in one of GGUF's other types, by ggml's own quantiser."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import gguf
import torch

from tests.engines.checkpoints import build
from tests.engines.gguf_files import Stored
from tests.engines.libllama import Libllama
from tests.engines.recipes import Recipe

KINDS: Final = (
    *("F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
    *("TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
)
"""Types of one file's matrices, all alike."""

MIXTURE: Final = "Q4_K_M"
"""As files are shipped: most matrices in Q4_K; embedding, values and half of each MLP in Q6_K."""

_FINER: Final = ("embed_tokens", "v_proj", "qkv_proj", "down_proj", "lm_head")


@lru_cache(maxsize=4)
def checkpoint(recipe: Recipe, kind: str, llama: Libllama) -> tuple[Any, Stored]:
    """Return transformers' model in float32, and its matrices as the file of ``kind`` has them.

    The model's own weights are what those matrices read as, so it computes what the file says.
    """
    model = build(recipe)
    if kind == "F32":
        return model, {}
    stored: dict[str, Any] = {}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2 or name.endswith("mlp.gate.weight"):  # routers stay float32
                continue
            encoding = _encoding(kind, name)
            rows = llama.quantize(weight.numpy(), encoding)
            stored[name] = encoding, rows
            weight.copy_(torch.from_numpy(gguf.dequantize(rows, encoding)))
    return model, stored


def _encoding(kind: str, name: str) -> Any:
    types: Mapping[str, Any] = gguf.GGMLQuantizationType.__members__
    if kind == MIXTURE:
        return types["Q6_K" if any(part in name for part in _FINER) else "Q4_K"]
    return types[kind]

"""Tiny random checkpoints in transformers: deterministic, and neither flat nor saturated."""

import math
from typing import Any

import numpy as np
import torch
import transformers

from tests.engines.recipes import CONTEXT, VOCAB_SIZE, Recipe

_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "attn_implementation": "eager",
}


def build(recipe: Recipe) -> Any:
    """Return transformers' model of this recipe in float32, on the CPU, ready to be read.

    Its weights are the recipe's alone: the same on every machine and in every run.
    """
    with torch.device("cpu"):
        config = getattr(transformers, recipe.config)(**{**_SIZES, **recipe.options})
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rng = np.random.default_rng(recipe.seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            drawn = _draw(name, tuple(weight.shape), recipe, rng)
            weight.copy_(torch.from_numpy(drawn))
    return model.eval()


def _draw(
    name: str, shape: tuple[int, ...], recipe: Recipe, rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float32]]:
    noise = rng.standard_normal(shape, dtype=np.float32)
    gemma, tied = recipe.architecture == "gemma3", recipe.tied
    if name.endswith("norm.weight"):
        centre = 0.0 if gemma else 1.0  # gemma's norms add one
        if tied and name == "model.norm.weight":
            centre += 4.0 if gemma else 2.0  # makes up for the small embedding
        return centre + 0.2 * noise
    if tied and "embed_tokens" in name:
        # The head as well: larger, a token's own logit would drown all others. gemma's is
        # multiplied by 16 on its way in.
        return np.float32((0.6 if gemma else 1.0) / math.sqrt(shape[-1])) * noise
    if name.endswith(".bias"):
        return 0.3 * noise
    return np.float32(_gain(name) / math.sqrt(shape[-1])) * noise


def _gain(name: str) -> float:
    """Standard deviation of what a matrix makes of a row of unit variance.

    Chosen so that attention looks at some positions more than at others, that no layer drowns
    what came before it, and that the logits' deviation is about 3.
    """
    if "embed_tokens" in name or "lm_head" in name:
        return 3.0
    if name.endswith("mlp.gate.weight"):
        return 4.0  # a router: near ties between experts would be decided by rounding
    if any(part in name for part in ("o_proj", "down_proj")):
        return 0.5
    return 1.0

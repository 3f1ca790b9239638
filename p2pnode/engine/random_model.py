"""A small llama of random weights in the production engine, for simulations and tests.

Engines of one seed and shape share their layers' arrays, whichever run each holds, so a swarm of
a hundred costs little more than one, and a split agrees with the whole bit for bit.
"""

import hashlib
from functools import lru_cache

import numpy as np

from p2pnode.engine.base import Floats
from p2pnode.engine.gguf import model_info
from p2pnode.engine.model_config import ModelConfig
from p2pnode.engine.numpy.engine import NumpyEngine
from p2pnode.engine.numpy.llama import LlamaHead, LlamaLayer
from p2pnode.engine.numpy.weights import TokenIds, Weights

_EMBEDDING, _HEAD, _FIRST_LAYER = 0, 1, 2  # which stream of random numbers a part draws from


def random_model(
    seed: int,
    *,
    n_layers: int = 6,
    d_model: int = 32,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    vocab_size: int = 256,
    context_length: int = 512,
    layers: range | None = None,
    kv_budget_bytes: int = 64 * 2**20,
) -> NumpyEngine:
    """Return an engine holding ``layers`` (by default all) of the random model of this seed.

    Token 0 is its end of text. The model's space hash depends on seed and shape alone.
    """
    config = ModelConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=d_model // n_heads,
        d_ff=3 * d_model,
        vocab_size=vocab_size,
        context_length=context_length,
        rope_base=10_000.0,
        norm_eps=1e-5,
    )
    held = range(n_layers) if layers is None else layers
    info = model_info(
        config,
        name=f"random-{seed}",
        space_id=f"random-{n_layers}x{d_model}",
        data_sig=hashlib.sha256(f"{seed}:{config}".encode()).hexdigest(),
        eos_ids=(0,),
    )
    weights = Weights(
        layers=held,
        blocks=tuple(_layer(seed, config, index) for index in held),
        embed=_RandomEmbedding(seed, config) if held.start == 0 else None,
        head=_head(seed, config) if held.stop == n_layers else None,
    )
    return NumpyEngine(
        info, config, weights, kv_budget_bytes=kv_budget_bytes, numerics="random model"
    )


class _RandomEmbedding:
    def __init__(self, seed: int, config: ModelConfig) -> None:
        self._rows = _embedding(seed, config)  # [vocab, d_model]

    def __call__(self, tokens: TokenIds) -> Floats:
        return self._rows[tokens]  # [tokens, d_model]; picking rows copies them


class _Draw:
    """Random matrices of one part of one model."""

    def __init__(self, seed: int, part: int) -> None:
        self._rng = np.random.Generator(np.random.Philox(key=seed, counter=part << 64))

    def matrix(self, out_size: int, in_size: int) -> Floats:
        drawn = self._rng.standard_normal((out_size, in_size), np.float32)
        return drawn / np.float32(np.sqrt(in_size))  # [out_size, in_size]


@lru_cache(maxsize=256)
def _layer(seed: int, config: ModelConfig, index: int) -> LlamaLayer:
    draw = _Draw(seed, _FIRST_LAYER + index)
    queries = config.n_heads * config.head_dim
    kv = config.n_kv_heads * config.head_dim
    return LlamaLayer(
        attn_norm=np.ones(config.d_model, np.float32),
        qkv=draw.matrix(queries + 2 * kv, config.d_model),
        output=draw.matrix(config.d_model, queries),
        ffn_norm=np.ones(config.d_model, np.float32),
        gate_up=draw.matrix(2 * config.d_ff, config.d_model),
        down=draw.matrix(config.d_model, config.d_ff),
    )


@lru_cache(maxsize=16)
def _embedding(seed: int, config: ModelConfig) -> Floats:
    return _Draw(seed, _EMBEDDING).matrix(config.vocab_size, config.d_model)


@lru_cache(maxsize=16)
def _head(seed: int, config: ModelConfig) -> LlamaHead:
    stored = _Draw(seed, _HEAD).matrix(config.vocab_size, config.d_model)
    return LlamaHead(
        norm=np.ones(config.d_model, np.float32),
        weight=np.ascontiguousarray(stored.T),  # [d_model, vocab]
    )

"""The BERT architecture, whole: what it is made of and how texts become vectors.

Texts of one step lie behind each other as the rows of one matrix: nothing is padded, and a product
reads each weight once for all of them. Only attention goes text by text. Read :func:`embed` top to
bottom; the shape stands on every line that changes one. Weights lie as [out, in], as they are
stored. Source: Devlin et al. 2019, and the pooling of Reimers and Gurevych 2019 (Sentence-BERT).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from p2pnode.engine.base import Floats
from p2pnode.engine.bert.gelu import gelu


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The shape of a model.

    Attributes:
        layers: How many.
        d_model: Width of a row, and of a vector.
        heads: Of attention; divides ``d_model``.
        d_ff: Width inside a feed-forward.
        vocab: Token ids are below this.
        positions: Of a text at the most, as far as the model was told where it is.
        eps: Added to each variance before its root.
    """

    layers: int
    d_model: int
    heads: int
    d_ff: int
    vocab: int
    positions: int
    eps: float = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A product and what is added to it, or a norm's scale and shift."""

    weight: Floats  # [out, in], or [d_model] of a norm
    bias: Floats  # [out], or [d_model]


@dataclass(frozen=True, slots=True, eq=False)
class BertLayer:
    """One layer's weights; what is applied to the same input is one matrix."""

    qkv: Affine  # [3 * d_model, d_model]
    output: Affine  # [d_model, d_model]
    attn_norm: Affine  # [d_model]
    up: Affine  # [d_ff, d_model]
    down: Affine  # [d_model, d_ff]
    ffn_norm: Affine  # [d_model]


@dataclass(frozen=True, slots=True, eq=False)
class Bert:
    """A model's weights, float32. Nothing writes to them: any number of threads may use one."""

    config: BertConfig
    words: Floats  # [vocab, d_model]
    places: Floats  # [positions, d_model]: of each position, and of the first segment
    norm: Affine  # [d_model]
    layers: tuple[BertLayer, ...]


def embed(model: Bert, texts: Sequence[Sequence[int]]) -> Floats:
    """Return the vector of each text: the mean of its last hidden states, of length 1.

    Args:
        model: The weights.
        texts: Token ids, none empty, none longer than the model's positions.

    Returns:
        [texts, d_model]
    """
    config = model.config
    ids = np.concatenate([np.asarray(text, np.int64) for text in texts])  # [tokens]
    ends = np.cumsum([len(text) for text in texts])  # [texts]
    spans = [slice(end - len(text), end) for text, end in zip(texts, ends, strict=True)]
    places = np.concatenate([np.arange(len(text)) for text in texts])  # [tokens]
    x = model.words[ids] + model.places[places]  # [tokens, d_model]
    x = _norm(x, model.norm, config.eps)  # [tokens, d_model]
    for layer in model.layers:
        x = _run_layer(x, layer, spans, config)  # [tokens, d_model]
    means = np.stack([x[span].mean(axis=0) for span in spans])  # [texts, d_model]
    return normalised(means)


def normalised(vectors: Floats) -> Floats:
    """Return vectors [n, d_model] of length 1; one of zeros stays as it is."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))  # [n]
    scaled: Floats = vectors / np.maximum(lengths, np.float32(1e-12))[:, None]  # [n, d_model]
    return scaled


def _run_layer(x: Floats, layer: BertLayer, spans: Sequence[slice], config: BertConfig) -> Floats:
    """Run one layer over x [tokens, d_model], each text by its ``span`` of rows."""
    qkv = _affine(x, layer.qkv)  # [tokens, 3 * d_model]
    mixed = np.concatenate([_attend(qkv[span], config) for span in spans])  # [tokens, d_model]
    x = _norm(x + _affine(mixed, layer.output), layer.attn_norm, config.eps)  # [tokens, d_model]
    hidden = _affine(x, layer.up)  # [tokens, d_ff]
    gelu(hidden)
    return _norm(x + _affine(hidden, layer.down), layer.ffn_norm, config.eps)  # [tokens, d_model]


def _attend(qkv: Floats, config: BertConfig) -> Floats:
    """Let every row of one text look at all of them: [n, 3 * d_model] to [n, d_model]."""
    n, head_dim = qkv.shape[0], config.d_model // config.heads
    split = qkv.reshape(n, 3, config.heads, head_dim)  # [n, 3, heads, head_dim]
    queries, keys, values = split.transpose(1, 2, 0, 3)  # each [heads, n, head_dim]
    scores: Floats = np.matmul(queries, keys.transpose(0, 2, 1))  # [heads, n, n]
    scores *= np.float32(1.0 / math.sqrt(head_dim))
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: Floats = np.matmul(scores, values)  # [heads, n, head_dim]
    return mixed.transpose(1, 0, 2).reshape(n, config.d_model)  # [n, d_model]


def _affine(x: Floats, by: Affine) -> Floats:
    """Return x [tokens, in] times the weight [out, in], and the bias: [tokens, out]."""
    y: Floats = x @ by.weight.T  # [tokens, out]
    y += by.bias
    return y


def _norm(x: Floats, by: Affine, eps: float) -> Floats:
    """Give each row of x [tokens, d_model] the mean 0 and the variance 1, then scale and shift."""
    x -= x.mean(axis=1, keepdims=True)  # [tokens, d_model]
    variance = np.einsum("ij,ij->i", x, x) / np.float32(x.shape[1])  # [tokens]
    x *= (1.0 / np.sqrt(variance + np.float32(eps)))[:, None]
    x *= by.weight
    x += by.bias
    return x

"""A BERT so small that a plain implementation follows it number by number."""

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from p2pnode.engine.bert.encoder import BertConfig
from tests.engine.small_checkpoint import write_raw

SMALL = BertConfig(layers=2, d_model=12, heads=3, d_ff=20, vocab=30, positions=16)

Tensors = dict[str, npt.NDArray[np.float32]]


def small_tensors(config: BertConfig = SMALL, seed: int = 0) -> Tensors:
    """Random weights, under the names that published files have."""
    rng = np.random.default_rng(seed)
    width = config.d_model
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab, width),
        "embeddings.position_embeddings.weight": (config.positions, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        **norm("embeddings", width),
    }
    for number in range(config.layers):
        at = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            shapes |= dense(f"{at}.attention.self.{name}", width, width)
        shapes |= dense(f"{at}.attention.output.dense", width, width)
        shapes |= norm(f"{at}.attention.output", width)
        shapes |= dense(f"{at}.intermediate.dense", config.d_ff, width)
        shapes |= dense(f"{at}.output.dense", width, config.d_ff)
        shapes |= norm(f"{at}.output", width)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def dense(name: str, out: int, of: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, of), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.LayerNorm.weight": (width,), f"{name}.LayerNorm.bias": (width,)}


def write_small_bert(path: Path, tensors: Tensors, behind: bytes = b"") -> None:
    """Write a file of safetensors, and something ``behind`` it."""
    header, at = dict[str, object](), 0
    for name, tensor in tensors.items():
        place = [at, at + tensor.nbytes]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": place}
        at = place[1]
    data = b"".join(tensor.astype("<f4").tobytes() for tensor in tensors.values())
    write_raw(path, json.dumps(header).encode(), data + behind)


def plainly(tensors: Tensors, config: BertConfig, ids: list[int]) -> list[float]:
    """Compute a text's vector in Python's numbers, by the paper's formulas one after the other."""
    known = {name: tensor.astype(float).tolist() for name, tensor in tensors.items()}

    def affine(row: list[float], name: str) -> list[float]:
        weight, bias = known[f"{name}.weight"], known[f"{name}.bias"]
        return [dot(row, line) + add for line, add in zip(weight, bias, strict=True)]

    def normed(row: list[float], name: str) -> list[float]:
        mean = math.fsum(row) / len(row)
        spread = math.fsum((x - mean) ** 2 for x in row) / len(row)
        scale, shift = known[f"{name}.LayerNorm.weight"], known[f"{name}.LayerNorm.bias"]
        root = math.sqrt(spread + config.eps)
        return [(x - mean) / root * a + b for x, a, b in zip(row, scale, shift, strict=True)]

    words = known["embeddings.word_embeddings.weight"]
    places = known["embeddings.position_embeddings.weight"]
    segment = known["embeddings.token_type_embeddings.weight"][0]
    rows = [
        normed([a + b + c for a, b, c in zip(words[token], places[at], segment, strict=True)],
               "embeddings")
        for at, token in enumerate(ids)
    ]  # fmt: skip
    size = config.d_model // config.heads
    for number in range(config.layers):
        at = f"encoder.layer.{number}"
        queries, keys, values = (
            [affine(row, f"{at}.attention.self.{name}") for row in rows]
            for name in ("query", "key", "value")
        )
        after = []
        for row, query in zip(rows, queries, strict=True):
            mixed: list[float] = []
            for head in range(config.heads):
                part = slice(head * size, (head + 1) * size)
                scores = [dot(query[part], key[part]) / math.sqrt(size) for key in keys]
                odds = [math.exp(score - max(scores)) for score in scores]
                columns = zip(*(value[part] for value in values), strict=True)
                mixed += [dot(odds, column) / math.fsum(odds) for column in columns]
            out = affine(mixed, f"{at}.attention.output.dense")
            out = normed(plus(row, out), f"{at}.attention.output")
            hidden = [x * 0.5 * math.erfc(-x / math.sqrt(2)) for x in affine(
                out, f"{at}.intermediate.dense")]  # fmt: skip
            after.append(normed(plus(out, affine(hidden, f"{at}.output.dense")), f"{at}.output"))
        rows = after
    mean = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [x / math.sqrt(dot(mean, mean)) for x in mean]


def plus(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def dot(one: "list[float] | tuple[float, ...]", other: "list[float] | tuple[float, ...]") -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))

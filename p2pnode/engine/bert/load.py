"""Reads a BERT's weights off a file of safetensors."""

from typing import Final

import numpy as np

from p2pnode.engine.base import Floats
from p2pnode.engine.bert.encoder import Affine, Bert, BertConfig, BertLayer
from p2pnode.engine.safetensors_file import SafetensorsFile
from p2pnode.errors import ModelError

_FETCH_AGAIN: Final = "Fetch it again."


def load_bert(file: SafetensorsFile, config: BertConfig) -> Bert:
    """Read the weights of a model of this shape.

    Raises:
        ModelError: One is missing, of another shape, not float32, or no number.
    """
    width = config.d_model

    def floats(name: str, *shape: int) -> Floats:
        return _floats(file, name, shape)

    def affine(name: str, out: int, of: int) -> Affine:
        return Affine(floats(f"{name}.weight", out, of), floats(f"{name}.bias", out))

    def norm(name: str) -> Affine:
        name = f"{name}.LayerNorm"
        return Affine(floats(f"{name}.weight", width), floats(f"{name}.bias", width))

    def layer(number: int) -> BertLayer:
        at = f"encoder.layer.{number}"
        qkv = [affine(f"{at}.attention.self.{name}", width, width) for name in _QKV]
        return BertLayer(
            qkv=Affine(
                np.concatenate([one.weight for one in qkv]),  # [3 * d_model, d_model]
                np.concatenate([one.bias for one in qkv]),  # [3 * d_model]
            ),
            output=affine(f"{at}.attention.output.dense", width, width),
            attn_norm=norm(f"{at}.attention.output"),
            up=affine(f"{at}.intermediate.dense", config.d_ff, width),
            down=affine(f"{at}.output.dense", width, config.d_ff),
            ffn_norm=norm(f"{at}.output"),
        )

    segments = floats("embeddings.token_type_embeddings.weight", 2, width)  # [2, d_model]
    places = floats("embeddings.position_embeddings.weight", config.positions, width)
    return Bert(
        config=config,
        words=floats("embeddings.word_embeddings.weight", config.vocab, width),
        places=places + segments[0],  # [positions, d_model]: a text alone is the first segment
        norm=norm("embeddings"),
        layers=tuple(layer(number) for number in range(config.layers)),
    )


_QKV: Final = ("query", "key", "value")


def _floats(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> Floats:
    """Return a tensor of ``shape``, checked."""
    tensor = file.tensors.get(name)
    if tensor is None or tensor.shape != shape or tensor.dtype != "F32":
        said = "is missing" if tensor is None else f"is {tensor.dtype} {list(tensor.shape)}"
        raise ModelError(
            f"{file.path.name}: {name} {said}, not F32 {list(shape)}", hint=_FETCH_AGAIN
        )
    values: Floats = np.frombuffer(file.read(tensor), "<f4").reshape(shape)  # `shape`
    if not np.isfinite(values).all():
        raise ModelError(f"{file.path.name}: {name} has numbers that are none", hint=_FETCH_AGAIN)
    return values

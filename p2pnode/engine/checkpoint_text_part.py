"""The text part of a checkpoint that reads pictures as well: gemma3 of 4B and more.

It is computed as a model of text alone is. What belongs to pictures is neither read nor loaded; a
shard that holds some of it counts into the root like any other.
"""

from collections.abc import Mapping
from typing import Any, Final

from p2pnode.errors import ModelError

TEXT_PARTS: Final[Mapping[str, str]] = {"gemma3": "gemma3_text"}
"""The ``model_type`` of checkpoints with pictures, and that of their text part."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
"""What the published files of gemma3 leave out, and transformers takes (``Gemma3TextConfig``).

Hashed as if the file said it: what is computed must not change with a release of transformers.
"""

_WITHIN: Final = (("language_model.", ""), ("model.language_model.", "model."))
_PICTURES: Final = ("vision_tower.", "multi_modal_projector.")


def text_part(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the text part of such a config.json, as a file of text alone says it.

    Raises:
        ModelError: It has none, or one of another type.
    """
    model_type = TEXT_PARTS[body["model_type"]]
    said = body.get("text_config")
    if not isinstance(said, dict):
        raise ModelError(
            f"the config.json of {name} does not say text_config",
            hint="Take the config.json that came with the checkpoint.",
        )
    if said.get("model_type", model_type) != model_type:
        raise ModelError(
            f"{name} has a text part of another type than {model_type}, which the torch engine "
            "does not compute",
            hint="Use the checkpoint of its publisher, or a GGUF.",
        )
    found = {**_DEFAULTS, **said, "model_type": model_type}
    if "rope_parameters" in said:  # they say the bases themselves
        found = {key: found[key] for key in found if key in said or "rope" not in key}
    is_tied = body.get("tie_word_embeddings", True)
    if found["tie_word_embeddings"] != is_tied:
        raise ModelError(
            f"the config.json of {name} contradicts itself: tie_word_embeddings is {is_tied!r}, "
            "and something else in text_config"[:200],
            hint="Take the config.json that came with the checkpoint.",
        )
    for key in ("eos_token_id", "bos_token_id", "dtype", "torch_dtype", "quantization_config"):
        if body.get(key) is not None:
            found[key] = body[key]
    return found


def name_in_text_part(tensor: str) -> str | None:
    """Return what a tensor is called in a model of text alone; None where it is of pictures."""
    if tensor.removeprefix("model.").startswith(_PICTURES):
        return None
    for prefix, plain in _WITHIN:
        if tensor.startswith(prefix):
            return plain + tensor.removeprefix(prefix)
    return tensor

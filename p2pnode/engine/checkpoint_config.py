"""What the config.json of a Hugging Face checkpoint says of a model, or why it is refused.

Only the settings named here reach the modules that compute, and they are what the tree of hashes is
made over: nothing that is not hashed can change the arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from p2pnode.engine.checkpoint_rope import LAYER_TYPES, named_anew, read_rope
from p2pnode.engine.checkpoint_text_part import TEXT_PARTS, name_in_text_part, text_part
from p2pnode.engine.gguf import MOST_POSITIONS
from p2pnode.engine.model_config import LEAST_BASE, ModelConfig, RopeScaling
from p2pnode.errors import ModelError
from p2pnode.terminal import label

ARCHITECTURES: Final[Mapping[str, str]] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma3_text": "gemma3",
    "gemma3": "gemma3",
    "phi3": "phi3",
}
"""The ``model_type`` of each checkpoint that is computed, and what GGUF calls it."""

_NULL_WINDOWS: Final = ("mistral", "gemma3_text")
"""Where a window of null is none, and one that is not named at all is transformers' 4,096."""

_NEEDED: Final = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)
_NUMBERS: Final = frozenset(
    {
        *_NEEDED,
        "num_key_value_heads",
        "head_dim",
        "rms_norm_eps",
        "rope_theta",
        "rope_local_base_freq",
        "partial_rotary_factor",
        "original_max_position_embeddings",
        "sliding_window",
        "sliding_window_pattern",
        "max_window_layers",
        "query_pre_attn_scalar",
    }
)
_LEAST: Final[Mapping[str, float]] = {
    "rope_theta": LEAST_BASE,
    "rope_local_base_freq": LEAST_BASE,
    "original_max_position_embeddings": 2,
    "sliding_window": 1,
    "sliding_window_pattern": 1,
    "query_pre_attn_scalar": 1,
}
"""Of the others :class:`ModelConfig` says it; transformers would divide by zero."""

_FLAGS: Final = frozenset(
    {"attention_bias", "mlp_bias", "tie_word_embeddings", "use_sliding_window"}
)
_TEXTS: Final = frozenset({"hidden_act", "hidden_activation"})
_TREES: Final = frozenset({"rope_scaling", "rope_parameters", "layer_types"})
SETTINGS: Final = _NUMBERS | _FLAGS | _TEXTS | _TREES
"""What may change the arithmetic; all else in the file has no effect."""

_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "use_bidirectional_attention": (None, False),
    "is_causal": (None, True),
    "attention_dropout": (None, 0),  # without effect; named since it stands in every file
}
_ACTIVATIONS: Final[Mapping[str, str]] = {"gemma3_text": "gelu_pytorch_tanh"}  # silu for all others
_DTYPES: Final[Mapping[str, str]] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_MOST_LAYERS: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class CheckpointModel:
    """What a checkpoint's configuration says.

    Attributes:
        model_type: As transformers calls it; of a model with pictures, its text part's.
        settings: Those of :data:`SETTINGS` that it has, without nulls that say nothing.
        config: The model's shape.
        eos_ids: Tokens that end an answer.
        bos_id: The token that begins a text, or None.
        dtype: The type of the weights as safetensors name it, where they are not here to see.
        has_pictures: Whether this is the text part of a model that reads pictures as well.
    """

    model_type: str
    settings: Mapping[str, Any]
    config: ModelConfig
    eos_ids: tuple[int, ...]
    bos_id: int | None
    dtype: str
    has_pictures: bool = False

    def own_name(self, tensor: str) -> str | None:
        """Return what a tensor of the file is called here; None where it is of pictures."""
        return name_in_text_part(tensor) if self.has_pictures else tensor


def read_checkpoint_config(body: object, name: str) -> CheckpointModel:
    """Read a parsed config.json; ``name`` is what the checkpoint is called in errors.

    Raises:
        ModelError: It is of a kind that is not computed, or contradicts itself.
    """
    if not isinstance(body, dict):
        raise ModelError(f"the config.json of {name} is no object")
    model_type = _model_type(body, name)
    has_pictures = model_type in TEXT_PARTS
    if has_pictures:
        body = text_part(body, name)
        model_type = _model_type(body, name)
    settings = named_anew(
        {key: body[key] for key in sorted(SETTINGS) if _is_said(body, key, model_type)},
        model_type,
    )
    _check_types(settings, name)
    _check_activation(settings, model_type, name)
    for key, neutral in _NEUTRAL.items():
        if key != "attention_dropout" and body.get(key) not in neutral:
            _refuse(name, f"{key} = {body[key]!r}"[:100])
    for key in _NEEDED:
        if key not in settings:
            raise ModelError(f"the config.json of {name} does not say {key}")
    rope = read_rope(settings, model_type, name)
    config = _shape(settings, model_type, rope, name)
    rows = config.vocab_size
    return CheckpointModel(
        model_type,
        settings,
        config,
        ids_in(body.get("eos_token_id"), rows),
        next(iter(ids_in(body.get("bos_token_id"), rows)), None),
        _DTYPES.get(str(body.get("dtype", body.get("torch_dtype"))), "BF16"),
        has_pictures,
    )


def ids_in(said: object, rows: int) -> tuple[int, ...]:
    """Return the tokens that a file names, one or a list; impossible ones are passed over."""
    ids = said if isinstance(said, list) else [said]
    known = {one for one in ids if isinstance(one, int) and not isinstance(one, bool)}
    return tuple(sorted(one for one in known if 0 <= one < rows))


def tensor_shapes(model: CheckpointModel) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the tensors of a layer, by their names in it, and those that belong to none."""
    config, settings = model.config, model.settings
    d_model, d_ff = config.d_model, config.d_ff
    queries, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    attn = {"q_proj": (queries, d_model), "k_proj": (kv, d_model), "v_proj": (kv, d_model)}
    mlp = {"gate_proj": (d_ff, d_model), "up_proj": (d_ff, d_model)}
    if config.architecture.is_fused:
        attn = {"qkv_proj": (queries + 2 * kv, d_model)}
        mlp = {"gate_up_proj": (2 * d_ff, d_model)}
    biased = set(attn) if config.architecture.has_qkv_bias else set()
    attn["o_proj"], mlp["down_proj"] = (d_model, queries), (d_model, d_ff)
    if model.model_type in ("llama", "qwen3", "gemma3_text") and settings.get("attention_bias"):
        biased |= set(attn)
    if model.model_type == "llama" and settings.get("mlp_bias"):
        biased |= set(mlp)
    layer: dict[str, tuple[int, ...]] = {}
    for room, matrices in (("self_attn", attn), ("mlp", mlp)):
        for key, shape in matrices.items():
            layer[f"{room}.{key}.weight"] = shape
            if key in biased:
                layer[f"{room}.{key}.bias"] = shape[:1]
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.architecture.has_post_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    layer |= {f"{norm}.weight": (d_model,) for norm in norms}
    if config.architecture.has_qk_norm:
        layer |= {f"self_attn.{one}_norm.weight": (config.head_dim,) for one in "qk"}
    shared = {
        "model.embed_tokens.weight": (config.vocab_size, d_model),
        "model.norm.weight": (d_model,),
    }
    if not config.is_tied:
        shared["lm_head.weight"] = (config.vocab_size, d_model)
    return layer, shared


def _model_type(body: Mapping[str, Any], name: str) -> str:
    model_type = body.get("model_type")
    is_known = isinstance(model_type, str) and model_type in ARCHITECTURES
    if body.get("auto_map") and not is_known:  # of a known one transformers has the code itself
        raise ModelError(
            f"{name} needs code of its own (auto_map in its config.json), which is never run",
            hint="Use a model of an architecture that transformers has itself.",
        )
    quantised = body.get("quantization_config") or body.get("compression_config")
    if quantised:
        said = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise ModelError(
            f"{name} is quantised ({label(str(said))[:40]}), which the torch engine does not read",
            hint="Use its checkpoint in bf16, or a GGUF.",
        )
    if model_type is None:
        raise ModelError(
            f"the config.json of {name} names no architecture (model_type)",
            hint="take the config.json that came with the checkpoint",
        )
    if not isinstance(model_type, str) or not is_known:
        raise ModelError(
            f"{name} is a {label(str(model_type))[:40]}, which the torch engine does not compute",
            hint=f"It knows {', '.join(ARCHITECTURES)}.",
        )
    return model_type


def _is_said(body: Mapping[str, Any], key: str, model_type: str) -> bool:
    return body.get(key) is not None or (
        key == "sliding_window" and key in body and model_type in _NULL_WINDOWS
    )


def _check_types(settings: Mapping[str, Any], name: str) -> None:
    for key, value in settings.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = (
            value is None
            or (key in _NUMBERS and is_number and _LEAST.get(key, 0) <= value <= 1 << 40)
            or (key in _FLAGS and isinstance(value, bool))
            or (key in _TEXTS and isinstance(value, str))
            or (key == "layer_types" and _is_layer_types(value))
            or (key in ("rope_scaling", "rope_parameters") and isinstance(value, dict))
        )
        if not fits:
            raise ModelError(f"the config.json of {name} has no usable {key}: {value!r}"[:200])


def _is_layer_types(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) and one in LAYER_TYPES for one in value
    )


def _check_activation(settings: Mapping[str, Any], model_type: str, name: str) -> None:
    expected = _ACTIVATIONS.get(model_type, "silu")
    for key in _TEXTS & settings.keys():
        if settings[key] != expected and (key == "hidden_activation") == (expected != "silu"):
            _refuse(name, f"{key} = {label(settings[key])[:40]}")


def _shape(
    settings: Mapping[str, Any], model_type: str, rope: RopeScaling, name: str
) -> ModelConfig:
    numbers = {key: settings[key] for key in _NUMBERS & settings.keys()}
    for key in (*_NEEDED, "num_key_value_heads", "head_dim"):
        if not isinstance(numbers.get(key, 0), int):
            raise ModelError(f"the config.json of {name} has no whole number for {key}")
    heads, d_model = numbers["num_attention_heads"], numbers["hidden_size"]
    if model_type in ("qwen3", "gemma3_text") and "head_dim" not in numbers:
        raise ModelError(f"the config.json of {name} does not say head_dim")
    kinds = settings.get("layer_types")
    layers = numbers["num_hidden_layers"]
    if layers > _MOST_LAYERS or (kinds is not None and len(kinds) != layers):
        raise ModelError(f"the config.json of {name} has {layers} layers, and not as many types")
    return ModelConfig(
        arch=ARCHITECTURES[model_type],
        n_layers=layers,
        d_model=d_model,
        n_heads=heads,
        n_kv_heads=numbers.get("num_key_value_heads", heads),
        head_dim=numbers.get("head_dim", d_model // max(heads, 1)),
        d_ff=numbers["intermediate_size"],
        vocab_size=numbers["vocab_size"],
        context_length=min(numbers["max_position_embeddings"], MOST_POSITIONS),
        rope_base=float(numbers.get("rope_theta", 10_000.0)),
        norm_eps=float(numbers.get("rms_norm_eps", 1e-6)),
        rope=rope,
        is_tied=settings.get("tie_word_embeddings", model_type == "gemma3_text"),
    )


def _refuse(name: str, what: str) -> NoReturn:
    raise ModelError(
        f"{name} has {what}, which the torch engine does not compute",
        hint="Use a plain model of this architecture.",
    )

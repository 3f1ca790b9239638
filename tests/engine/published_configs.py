"""What the config.json of published checkpoints holds, key by key; and small models of them.

Keys and values are those of the publishers' own files (transformers 4.38 to 4.55 wrote them);
lists of one value are written short.
"""

from collections.abc import Mapping
from typing import Any, Final

_PHI3: Final[Mapping[str, Any]] = {
    "_name_or_path": "Phi-3-mini-4k-instruct",
    "architectures": ["Phi3ForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.2",
    "use_cache": True,
    "attention_bias": False,
    "vocab_size": 32064,
}
_LONG: Final = [1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, *[30.0] * 24, *[64.0] * 16]
_SHORT: Final = [1.0, 1.02, 1.03, 1.03, *[1.05] * 28, *[2.02] * 16]
_PHI3_128K: Final[Mapping[str, Any]] = {
    **_PHI3,
    "_name_or_path": "Phi-3-mini-128k-instruct",
    "max_position_embeddings": 131072,
    "rope_scaling": {"long_factor": _LONG, "short_factor": _SHORT, "type": "longrope"},
    "sliding_window": 262144,
}
_PHI4_MINI: Final[Mapping[str, Any]] = {
    **_PHI3_128K,
    "_name_or_path": "Phi-4-mini-instruct",
    "auto_map": {**_PHI3["auto_map"], "AutoTokenizer": "Xenova/gpt-4o"},
    "bos_token_id": 199999,
    "eos_token_id": 199999,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "pad_token_id": 199999,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {"long_factor": _LONG, "short_factor": [1.0] * 48, "type": "longrope"},
    "tie_word_embeddings": True,
    "transformers_version": "4.45.0",
    "vocab_size": 200064,
}
_LLAMA: Final[Mapping[str, Any]] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
_MISTRAL: Final[Mapping[str, Any]] = {
    "architectures": ["MistralForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.0.dev0",
    "use_cache": True,
    "vocab_size": 32768,
}
_QWEN2: Final[Mapping[str, Any]] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
_QWEN3: Final[Mapping[str, Any]] = {
    **_QWEN2,
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "transformers_version": "4.51.0",
}
_GEMMA_1B: Final[Mapping[str, Any]] = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 262144,
}
_GEMMA_270M: Final[Mapping[str, Any]] = {
    **{
        k: v
        for k, v in _GEMMA_1B.items()
        if k not in ("sliding_window_pattern", "cache_implementation")
    },
    "_sliding_window_pattern": 6,
    "eos_token_id": 1,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "layer_types": [*(["sliding_attention"] * 5 + ["full_attention"]) * 3],
    "num_hidden_layers": 18,
    "rope_local_base_freq": 10000.0,
    "rope_theta": 1000000.0,
    "transformers_version": "4.55.0.dev0",
    "use_bidirectional_attention": False,
}

_VISION: Final[Mapping[str, Any]] = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}
_GEMMA_4B: Final[Mapping[str, Any]] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "boi_token_index": 255999,
    "eoi_token_index": 256000,
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "initializer_range": 0.02,
    "mm_tokens_per_image": 256,
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "vision_config": _VISION,
}
_GEMMA_27B_TEXT: Final[Mapping[str, Any]] = {
    "head_dim": 128,
    "hidden_size": 5376,
    "intermediate_size": 21504,
    "model_type": "gemma3_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 62,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 168,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
_GEMMA_12B_ANEW: Final[Mapping[str, Any]] = {
    **{key: _GEMMA_1B[key] for key in _GEMMA_1B if "token_id" not in key},
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16,
    "num_hidden_layers": 48,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
    "vocab_size": 262208,
}

PUBLISHED: Final[Mapping[str, Mapping[str, Any]]] = {
    "Phi-3-mini-4k-instruct": _PHI3,
    "Phi-3-mini-128k-instruct": _PHI3_128K,
    "Phi-3-mini-128k-instruct, first": {
        **_PHI3_128K,
        "rope_scaling": {**_PHI3_128K["rope_scaling"], "type": "su"},
    },
    "Phi-3.5-mini-instruct": {**_PHI3_128K, "_name_or_path": "Phi-3.5-mini-instruct"},
    "Phi-4-mini-instruct": _PHI4_MINI,
    "Llama-3.2-1B": _LLAMA,
    "Mistral-7B-v0.3": _MISTRAL,
    "Qwen2.5-0.5B": _QWEN2,
    "Qwen3-0.6B": _QWEN3,
    "gemma-3-270m": _GEMMA_270M,
    "gemma-3-1b-it": _GEMMA_1B,
    "gemma-3-4b-it": _GEMMA_4B,
    "gemma-3-27b-it": {**_GEMMA_4B, "text_config": _GEMMA_27B_TEXT},
    "gemma-3-12b-it, written anew": {**_GEMMA_4B, "text_config": _GEMMA_12B_ANEW},
}
"""As they are published."""

_SIZES: Final[Mapping[str, int]] = {
    "intermediate_size": 96,
    "vocab_size": 130,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "sliding_window": 24,
    "original_max_position_embeddings": 32,
}
_WIDTH: Final = 16


def small(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return it with the same keys, and small sizes: heads of 16, windows of 24 positions.

    Sizes that it leaves to transformers stay what they are.
    """
    if "text_config" in config:
        vision = {**config["vision_config"], "hidden_size": 16, "intermediate_size": 16}
        vision |= {"image_size": 28, "num_attention_heads": 2, "num_hidden_layers": 1}
        return {**config, "text_config": small(config["text_config"]), "vision_config": vision}
    made = {key: _SIZES[key] if key in _SIZES and config[key] else config[key] for key in config}
    heads, has_own_width = 8, True  # gemma3's, where nothing is said
    if "num_attention_heads" in config:
        kv = max(1, config["num_key_value_heads"] // 8)
        heads = kv * (config["num_attention_heads"] // config["num_key_value_heads"])
        has_own_width = "head_dim" in config
        made |= {"num_attention_heads": heads, "num_key_value_heads": kv}
    made["num_hidden_layers"] = 7
    made["hidden_size"] = heads * (8 if has_own_width else _WIDTH)
    if "head_dim" in config:
        made["head_dim"] = _WIDTH
    if "query_pre_attn_scalar" in config:
        made["query_pre_attn_scalar"] = _WIDTH
    if "layer_types" in config:
        made["layer_types"] = config["layer_types"][:7]
    if "max_position_embeddings" in config:
        made["max_position_embeddings"] = 1024
    made["rope_scaling"] = _small_rope(config)
    if "rope_scaling" not in config:
        del made["rope_scaling"]
    return made


def _small_rope(config: Mapping[str, Any]) -> dict[str, Any] | None:
    said = config.get("rope_scaling")
    if not said:
        return None
    pairs = int(_WIDTH * config.get("partial_rotary_factor", 1.0)) // 2
    made = {
        key: value[:: len(value) // pairs][:pairs] if isinstance(value, list) else value
        for key, value in said.items()
    }
    if "original_max_position_embeddings" in made:
        made["original_max_position_embeddings"] = 32
    return made

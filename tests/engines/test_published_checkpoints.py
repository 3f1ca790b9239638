"""Small checkpoints with the config.json of published ones: transformers' numbers, bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.published_configs import PUBLISHED, small
from tests.engines.needs import require_references

require_references()

import torch  # noqa: E402  after the skip
import transformers  # noqa: E402

from p2pnode.engine.checkpoint_config import read_checkpoint_config  # noqa: E402
from p2pnode.engine.torch.build import settings_of  # noqa: E402
from tests.engines.reference import hidden_states  # noqa: E402
from tests.engines.test_ggml import answer  # noqa: E402
from tests.engines.test_torch import in_one_call  # noqa: E402
from tests.engines.test_torch_checkpoints import engine  # noqa: E402

_LONGROPE = {"type": "longrope"}
_WITHOUT_EFFECT = {
    *("attention_dropout", "embd_pdrop", "resid_pdrop", "initializer_range", "pretraining_tp"),
    *("full_attn_mod", "interpolate_factor", "lm_head_bias", "torch_dtype"),
}
LENGTHS = (20, 70)
"""Tokens: within the original context and the window of the small models, and past both."""


def model_of(folder: Path, config: dict[str, Any]) -> Any:
    """Write a checkpoint of random numbers; return it as transformers reads it."""
    kind = transformers.models.auto.configuration_auto.CONFIG_MAPPING[config["model_type"]]
    said = json.loads(json.dumps(_as_known(config)))
    made = transformers.AutoModelForCausalLM.from_config(kind(**said))
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for _, weight in sorted(made.named_parameters()):
            noise = rng.standard_normal(tuple(weight.shape), dtype=np.float32)
            scale = np.float32(0.3 if weight.dim() == 1 else weight.shape[-1] ** -0.5)
            weight.copy_(torch.from_numpy(scale * noise) + (weight if weight.dim() == 1 else 0))
    made.float().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(_as_known(config)))
    read = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False
    )
    (folder / "config.json").write_text(json.dumps(config))
    return read.eval()


def _as_known(config: dict[str, Any]) -> dict[str, Any]:
    """Call LongRoPE as transformers has called it since 2024; it no longer reads the old name."""
    rope = config.get("rope_scaling") or {}
    return config if rope.get("type") != "su" else config | {"rope_scaling": rope | _LONGROPE}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_computes_what_transformers_does_whole_and_split(name: str, tmp_path: Path) -> None:
    model = model_of(tmp_path, small(PUBLISHED[name]))
    whole = engine(tmp_path)
    count = whole.info.n_layers
    body = getattr(model.model, "language_model", model.model)
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(3, 130, length).tolist()
        expected = hidden_states(model, ids, count, body)
        hidden = in_one_call(whole, ids)
        assert np.abs(hidden - expected).max() == 0
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1:].numpy()
        np.testing.assert_allclose(whole.logits(hidden[-1:]), logits, rtol=0, atol=1e-4)
        together = answer([whole], ids)
        for cut in (1, count - 1):
            stages = [engine(tmp_path, run) for run in (range(cut), range(cut, count))]
            np.testing.assert_array_equal(answer(stages, ids), together)


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_reads_our_settings_as_it_reads_the_file(name: str) -> None:
    said = json.loads(json.dumps(_as_known(dict(PUBLISHED[name]))))
    kinds = transformers.models.auto.configuration_auto.CONFIG_MAPPING
    theirs = kinds[said["model_type"]](**said).get_text_config()
    model = read_checkpoint_config(dict(PUBLISHED[name]), name)
    ours = settings_of(model.model_type, model.settings)
    left = {"architectures", "dtype", "transformers_version", "_name_or_path", "auto_map"}
    left |= {"bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "cache_implementation"}
    left |= {"rope_scaling", "rope_theta", "rope_local_base_freq", "_sliding_window_pattern"}
    left |= {"sliding_window_pattern", *_WITHOUT_EFFECT}
    expected, found = (
        {k: v for k, v in one.to_dict().items() if k not in left} for one in (theirs, ours)
    )
    assert found == expected


SIZES = {"vocab_size": 130, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
WINDOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "no window, in so many words": ("mistral", {"sliding_window": None}),
    "transformers' own window": ("mistral", {}),
    "a window": ("mistral", {"sliding_window": 24}),
    "windows of two layers": (
        "mistral",
        {
            "sliding_window": 24,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
            "head_dim": 16,
        },
    ),
    "types that phi3 passes over": (
        "phi3",
        {"sliding_window": 24, "layer_types": ["full_attention"] * 4, "pad_token_id": 2},
    ),
    "a window that llama passes over": ("llama", {"sliding_window": 24}),
    "a window that qwen does not use": ("qwen2", {"sliding_window": 24}),
    "a window that it uses": (
        "qwen2",
        {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 2},
    ),
    "phi3 without one": ("phi3", {"sliding_window": None, "pad_token_id": 2}),
}


@pytest.mark.parametrize("what", WINDOWS)
def test_layers_see_as_far_as_in_transformers(what: str, tmp_path: Path) -> None:
    model_type, more = WINDOWS[what]
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 5000}
    length = 4200 if what.startswith(("no", "transformers'")) else 60
    model = model_of(tmp_path, {"model_type": model_type, **SIZES, **heads, **more})
    one = engine(tmp_path)
    ids = np.random.default_rng(1).integers(3, 130, length).tolist()
    expected = hidden_states(model, ids, 4)
    assert np.abs(in_one_call(one, ids) - expected).max() == 0

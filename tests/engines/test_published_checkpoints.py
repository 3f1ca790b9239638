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

from tests.engines.reference import hidden_states  # noqa: E402
from tests.engines.test_ggml import answer  # noqa: E402
from tests.engines.test_torch import in_one_call  # noqa: E402
from tests.engines.test_torch_checkpoints import engine  # noqa: E402

_LONGROPE = {"type": "longrope"}
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
    for length in LENGTHS:
        ids = np.random.default_rng(length).integers(3, 130, length).tolist()
        expected = hidden_states(model, ids, count)
        hidden = in_one_call(whole, ids)
        assert np.abs(hidden - expected).max() == 0
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1:].numpy()
        np.testing.assert_allclose(whole.logits(hidden[-1:]), logits, rtol=0, atol=1e-4)
        together = answer([whole], ids)
        for cut in (1, count - 1):
            stages = [engine(tmp_path, run) for run in (range(cut), range(cut, count))]
            np.testing.assert_array_equal(answer(stages, ids), together)

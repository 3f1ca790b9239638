"""What a model's numbers say of each layer and session."""

import math

import pytest

from p2pnode.engine.model_config import ModelConfig, RopeKind, RopeScaling
from p2pnode.errors import ModelError


def config(**changes: object) -> ModelConfig:
    plain: dict[str, object] = {
        "n_layers": 12,
        "d_model": 64,
        "n_heads": 4,
        "n_kv_heads": 2,
        "head_dim": 16,
        "d_ff": 128,
        "vocab_size": 100,
        "context_length": 1024,
        "rope_base": 1e6,
        "norm_eps": 1e-5,
    }
    return ModelConfig(**{**plain, **changes})  # type: ignore[arg-type]


def test_every_sixth_layer_of_gemma_sees_all_with_a_base_of_its_own() -> None:
    gemma = config(
        arch="gemma3",
        window=512,
        window_period=6,
        window_rope_base=1e4,
        rope=RopeScaling(RopeKind.LINEAR, 8.0),
    )
    assert [gemma.window_of(layer) for layer in range(12)] == 2 * [*5 * [512], 0]
    assert [gemma.rope_base_of(layer) for layer in (4, 5)] == [1e4, 1e6]
    assert [gemma.rope_factor_of(layer) for layer in (4, 5)] == [1.0, 8.0]


@pytest.mark.parametrize(
    ("kind", "is_long"), [(RopeKind.LONGROPE, True), (RopeKind.YARN, False), (RopeKind.NONE, False)]
)
def test_only_longrope_asks_how_long_a_session_is(kind: RopeKind, is_long: bool) -> None:
    one = config(rope=RopeScaling(kind, 4.0, original_context=512))
    assert not one.is_long(512)
    assert one.is_long(513) is is_long


@pytest.mark.parametrize(
    "changes",
    [
        {"n_heads": 3},
        {"head_dim": 15},
        {"rope_dims": 20},
        {"rope_dims": 3},
        {"rope_base": math.nan},
        {"norm_eps": 0.0},
        {"attention_scale": -1.0},
        {"n_experts_used": 4},
        {"n_experts": 4, "n_experts_used": 2},
        {"arch": "qwen3moe"},
        {"arch": "qwen3moe", "n_experts": 4, "n_experts_used": 5},
        {"arch": "qwen3moe", "n_experts": 4096, "n_experts_used": 2},
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        config(**changes)

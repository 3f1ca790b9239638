"""What a session costs a stage in memory: the one place that requester and stage reckon it."""

from p2pnode.engine.base import ModelInfo


def stage_bytes(model: ModelInfo, layers: int, positions: int, out_dtype: str = "f16") -> int:
    """Return the KV cache, and what is kept of the batches passed on, in bytes.

    Args:
        model: Of the session.
        layers: How many of them the stage runs.
        positions: Prompt and answer.
        out_dtype: How it sends hidden states: ``f16`` or ``f32``.
    """
    kept = model.d_model * (2 if out_dtype == "f16" else 4)
    return positions * (model.kv_bytes_per_token_layer * layers + kept)

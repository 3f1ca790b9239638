"""What a session costs a stage in memory: the one place that requester and stage reckon it."""

from p2pnode.engine.base import EXACT, KvSizes, ModelInfo


def stage_bytes(
    model: ModelInfo,
    layers: int,
    positions: int,
    out_dtype: str,
    kv_per_token_layer: int | None = None,
    kv_sizes: KvSizes = EXACT,
) -> int:
    """Return the KV cache, and what is kept of the batches passed on, in bytes.

    Args:
        model: Of the session.
        layers: How many of them the stage runs.
        positions: Prompt and answer.
        out_dtype: How it sends hidden states: ``f16`` or ``f32``.
        kv_per_token_layer: Bytes of its engine's KV cache; None for those of float32, the most.
        kv_sizes: What sizes its engine makes caches in. A requester does not know them: the stage
            refuses what it has no room for.
    """
    kept = model.d_model * value_bytes(out_dtype)
    per = model.kv_bytes_per_token_layer if kv_per_token_layer is None else kv_per_token_layer
    return kv_sizes.rounded(positions) * per * layers + positions * kept


def value_bytes(out_dtype: str) -> int:
    """Return what a hidden value takes that is sent as ``f16`` or ``f32``, coarser ones at most."""
    return 2 if out_dtype == "f16" else 4

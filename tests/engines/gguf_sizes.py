"""What every GGUF file says of a model's sizes, and how such a file is ended."""

from typing import Any


def add_sizes(
    writer: Any,
    *,
    layers: int,
    context: int,
    d_model: int,
    d_ff: int,
    heads: int,
    kv_heads: int,
    norm_eps: float,
    head_dim: int | None,
) -> None:
    """Add them; ``head_dim`` is None where it follows from the others."""
    writer.add_block_count(layers)
    writer.add_context_length(context)
    writer.add_embedding_length(d_model)
    writer.add_feed_forward_length(d_ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(norm_eps)
    if head_dim is not None:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)


def end(writer: Any) -> None:
    """Write all that was added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

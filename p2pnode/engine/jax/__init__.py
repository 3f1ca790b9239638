"""The llama architecture in JAX: compiled by XLA for whatever device JAX has."""

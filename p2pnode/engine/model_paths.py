"""Which files are a model's, by names alone: apart, so that looking at them costs no arithmetic.

A model is a GGUF file, or several that belong together, or a checkpoint: a folder.
"""

from pathlib import Path
from typing import Final

from p2pnode.engine.gguf_split import part_paths

CONFIG: Final = "config.json"
"""Of a checkpoint; a folder without one is none."""

SHARDS_NOTE: Final = "p2pnode-shards.json"
"""Beside a checkpoint of which not all was fetched: what the hub says of each shard's SHA-256."""

_BESIDE: Final = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    SHARDS_NOTE,
)
_SHARDS: Final = "*.safetensors"


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint's, which lies in a folder; everything else is a GGUF file."""
    return path.is_dir()


def paths_by_name(path: Path) -> tuple[Path, ...]:
    """Return the files of the model at ``path`` in order, those too that are not there."""
    if not is_checkpoint(path):
        return part_paths(path)
    return (*(path / name for name in _BESIDE), *sorted(path.glob(_SHARDS)))

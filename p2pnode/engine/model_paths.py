"""Which files are a model's, by names alone: apart, so that looking at them costs no arithmetic."""

from pathlib import Path

from p2pnode.engine.gguf_split import part_paths


def paths_by_name(path: Path) -> tuple[Path, ...]:
    """Return the files of the model at ``path`` in order, those too that are not there."""
    return part_paths(path)

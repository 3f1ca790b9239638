"""A checkpoint on disk, as everybody above the engines sees a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from p2pnode.engine.checkpoint import Checkpoint
from p2pnode.engine.checkpoint_tree import CheckpointTree, hash_checkpoint
from p2pnode.engine.hash_tree import MOST_THREADS
from p2pnode.engine.model_paths import paths_by_name
from p2pnode.engine.stored_model import Progress, Tree
from p2pnode.engine.word_files import WordFiles

if TYPE_CHECKING:
    from p2pnode.engine.base import ModelInfo
    from p2pnode.engine.model_config import ModelConfig


ENGINE: Final = "torch"
"""What computes checkpoints."""


class StoredCheckpoint:
    """A checkpoint of Hugging Face's in a folder.

    Attributes:
        checkpoint: What was opened.
        engine: What computes it.
    """

    engine: Final = ENGINE

    def __init__(self, path: Path) -> None:
        self.checkpoint: Final = Checkpoint(path)

    @property
    def path(self) -> Path:
        return self.checkpoint.path

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for path in paths_by_name(self.path) if path.exists())

    @property
    def words(self) -> WordFiles:
        return self.checkpoint.words()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.checkpoint.__exit__(*error)

    def config(self) -> "ModelConfig":
        return self.checkpoint.model.config

    def info(self, tree: Tree) -> "ModelInfo":
        return self.checkpoint.info(tree.root)

    def licence(self) -> str:
        return ""  # it stands in a page of the hub

    def hashed(
        self, progress: Progress | None = None, *, threads: int = MOST_THREADS
    ) -> CheckpointTree:
        del threads  # a shard is one hash: its bytes come one after the other
        return hash_checkpoint(self.checkpoint, progress)

    def recalled(self, noted: Mapping[str, Any]) -> CheckpointTree:
        tree = CheckpointTree.of_note(noted)
        tree.check_metadata(self.checkpoint)
        return tree

    def words_hash(self) -> bytes:
        return self.words.hash()

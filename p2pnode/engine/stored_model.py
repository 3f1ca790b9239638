"""A model on disk, whatever its format: what it is, what it holds, where its words are.

Everybody above the engines sees a model's files through this, and what a path is is decided in
:func:`open_stored` alone. Arithmetic is imported when it is asked for: the process that tokenises
opens models too.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.hash_tree import MOST_THREADS, HashTree, hash_file, vocabulary_hash
from p2pnode.engine.model_paths import is_checkpoint
from p2pnode.engine.word_files import WordFiles
from p2pnode.errors import ModelChangedError

if TYPE_CHECKING:
    from p2pnode.engine.base import ModelInfo
    from p2pnode.engine.model_config import ModelConfig
    from p2pnode.engine.stored_checkpoint import StoredCheckpoint

Progress: TypeAlias = Callable[[float], None]
Words: TypeAlias = GgufFile | WordFiles
"""Where a vocabulary is read from; :mod:`p2pnode.text.stored_vocabulary` reads each kind."""


class Tree(Protocol):
    """What a model holds, as hashes."""

    @property
    def root(self) -> str:
        """The root over them, 64 hexadecimal digits."""

    def noted(self) -> dict[str, Any]:
        """Return it as JSON, without the root."""


class StoredModel(Protocol):
    """An open model, to be used in a ``with`` block."""

    @property
    def path(self) -> Path:
        """Where it is."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of its files that are here."""

    @property
    def engine(self) -> str:
        """The one engine that computes it; empty where several do."""

    @property
    def words(self) -> Words:
        """Where its vocabulary is."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def config(self) -> "ModelConfig":
        """Return its shape.

        Raises:
            ModelError: Nobody here computes it.
        """

    def info(self, tree: Tree) -> "ModelInfo":
        """Say what model it is, of which the hashes are known.

        Raises:
            ModelError: Nobody here computes it.
        """

    def licence(self) -> str:
        """Return what its files say of its licence; may be empty."""

    def hashed(self, progress: Progress | None = None, *, threads: int = MOST_THREADS) -> Tree:
        """Read all of it; ``progress`` hears which part from 0 to 1 is done.

        Raises:
            ModelError: It cannot be read to its end.
        """

    def recalled(self, noted: Mapping[str, Any]) -> Tree:
        """Return the tree that was noted as this JSON, if it is this model's by its headers.

        Raises:
            ModelError: It is another's.
            ValueError, TypeError, KeyError, AttributeError: It is none.
        """

    def words_hash(self) -> bytes:
        """Return the 32 bytes that stand for vocabulary and chat template."""


def open_stored(path: Path) -> "StoredGguf | StoredCheckpoint":
    """Open the model at ``path``.

    Raises:
        ModelError: There is none, or it is broken.
    """
    if is_checkpoint(path):
        from p2pnode.engine.stored_checkpoint import StoredCheckpoint

        return StoredCheckpoint(path)
    return StoredGguf(path)


def tree_of_gguf(tree: Tree, path: Path) -> HashTree:
    """Return the tree of hashes of the GGUF file at ``path``.

    Raises:
        ModelChangedError: It is of a model of another format: what is there now is another one.
    """
    if not isinstance(tree, HashTree):
        raise ModelChangedError(f"{path.name} is of another format than what was hashed")
    return tree


class StoredGguf:
    """A model in a GGUF file, or in several.

    Attributes:
        file: What was opened.
        engine: Empty: every engine computes some of them.
    """

    engine: Final = ""

    def __init__(self, path: Path) -> None:
        self.file: Final = GgufFile(path)

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.file.paths

    @property
    def words(self) -> GgufFile:
        return self.file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.__exit__(*error)

    def config(self) -> "ModelConfig":
        from p2pnode.engine.gguf import read_config

        return read_config(self.file)

    def info(self, tree: Tree) -> "ModelInfo":
        from p2pnode.engine.gguf import info_of

        return info_of(self.file, self.config(), tree.root)

    def licence(self) -> str:
        said = self.file.metadata.get("general.license")
        return said if isinstance(said, str) else ""

    def hashed(self, progress: Progress | None = None, *, threads: int = MOST_THREADS) -> HashTree:
        return hash_file(self.file, progress, threads=threads)

    def recalled(self, noted: Mapping[str, Any]) -> HashTree:
        tree = HashTree.of_note(noted)
        tree.check_metadata(self.file)
        return tree

    def words_hash(self) -> bytes:
        return vocabulary_hash(self.file)

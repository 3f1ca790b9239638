"""A model's file while a node uses it: what it held when it was hashed, and whether it still does.

To hash a file is to read it whole, so its tree of hashes is remembered beside the file's stamp. No
tensor is believed on that alone: whoever reads one checks it against the tree. Vocabulary and chat
template are no part of the tree, and are believed while the stamp stays; their own hash tells
whether another stamp means other words.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.checkpoint_tree import CheckpointTree
from p2pnode.engine.stored_model import StoredModel, Tree, open_stored
from p2pnode.errors import ModelChangedError, ModelError
from p2pnode.node.stamp import Stamp
from p2pnode.replacing import replace_file
from p2pnode.text.stored_vocabulary import check_words

MOST_REMEMBERED: Final = 64
"""Trees kept; one of a large model takes 100 kB."""

_MOST_BYTES: Final = 16 * 2**20  # of a remembered tree
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file and what was hashed of it.

    Attributes:
        path: Where it is.
        stamp: What the file system said when it was hashed.
        tree: Its hashes.
        words: The hash of its vocabulary and chat template.
        info: What model it is.
    """

    path: Path
    stamp: Stamp
    tree: Tree
    words: bytes
    info: ModelInfo

    @classmethod
    def open(
        cls, path: Path, remembered: Path, progress: Callable[[float], None] | None = None
    ) -> Self:
        """Hash a file, unless its tree is in the folder ``remembered``; say what model it is.

        Raises:
            ModelError: It cannot be run or asked, or changes while it is read.
        """
        for _ in range(_TRIES):
            stamp = Stamp.of(path)
            with open_stored(path) as model:
                model.config()  # who cannot be run need not be hashed
                check_words(model)
                tree = _hashed(model, stamp, remembered, progress)
                known = cls(path, stamp, tree, model.words_hash(), model.info(tree))
            if Stamp.of(path) == stamp:
                return known
        raise ModelError(f"{path} changes while it is read", hint="Wait until it is written.")

    @property
    def may_lack_shards(self) -> bool:
        """Whether a part of it may be somewhere else, to be fetched when it is needed."""
        return isinstance(self.tree, CheckpointTree)

    def read_again(self, stamp: Stamp) -> "ModelFile":
        """Read the whole file, which has this ``stamp`` now; return it with that.

        In one thread, since others compute meanwhile.

        Raises:
            ModelChangedError: It holds something else, or cannot be read.
        """
        try:
            with open_stored(self.path) as model:
                tree, words = model.hashed(threads=1), model.words_hash()
        except ModelError as error:
            raise ModelChangedError(f"the file changed: {error}", hint=error.hint) from error
        if tree.root != self.tree.root:
            raise _changed(f"{self.path.name} holds another model than the one that was hashed")
        if words != self.words:
            raise _changed(f"{self.path.name} has another vocabulary or chat template than before")
        return replace(self, stamp=stamp, tree=tree)  # of shards that came, more is known


def _changed(what: str) -> ModelChangedError:
    return ModelChangedError(
        f"the file changed: {what}",
        hint="restart the node to serve the new one, or put the old file back",
    )


def hash_tree(path: Path, remembered: Path) -> Tree:
    """Return a file's tree of hashes, out of the folder ``remembered`` if it is in there.

    Raises:
        ModelError: It is no model.
    """
    stamp = Stamp.of(path)
    with open_stored(path) as model:
        return _hashed(model, stamp, remembered, None)


def _hashed(
    model: StoredModel, stamp: Stamp, remembered: Path, progress: Callable[[float], None] | None
) -> Tree:
    name = hashlib.sha256(os.fsencode(model.path.resolve())).hexdigest()[:32]
    note = remembered / f"{name}.json"
    tree = _recall(note, stamp, model)
    if tree is None:
        tree = model.hashed(progress)
        _remember(note, stamp, tree)
    return tree


def _recall(note: Path, stamp: Stamp, model: StoredModel) -> Tree | None:
    """Return what is remembered of a file with this stamp, if it is of this header at all."""
    try:
        if note.stat().st_size > _MOST_BYTES:
            return None
        body = json.loads(note.read_bytes())
        if body["stamp"] != stamp.numbers:
            return None
        return model.recalled(body)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, ModelError):
        return None


def _remember(note: Path, stamp: Stamp, tree: Tree) -> None:
    """Write it whole or not at all; where that fails, the file is hashed again the next time."""
    body = {"stamp": stamp.numbers, **tree.noted()}
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        _forget_oldest(note.parent)
        replace_file(note, json.dumps(body).encode())


def _forget_oldest(folder: Path) -> None:
    notes = sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime)
    for note in notes[: max(0, len(notes) - MOST_REMEMBERED + 1)]:
        note.unlink(missing_ok=True)

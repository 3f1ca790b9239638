"""Checkpoints of a hub in the user's cache: fetched under their id, as far as they are needed."""

from collections.abc import Callable
from pathlib import Path

from p2pnode.engine.torch.hub import NO_LAYERS, cache_name_of, fetch_checkpoint, fetch_missing
from p2pnode.errors import UserError
from p2pnode.node.entries import CHECKPOINT, Entry, read_entries, write_entry
from p2pnode.node.fetching import Progress
from p2pnode.node.model_cache import models_dir
from p2pnode.node.pull_order import ending_in_order, kept_in, lock_of, locked


def fetch_id(
    name: str, layers: range | None, progress: Progress, tell: Callable[[str], None]
) -> Path:
    """Fetch the small files of a checkpoint, and the shards of ``layers``.

    What is there is not fetched again, and what was cut short goes on where it ended.

    Args:
        name: ``hf:owner/repo``, with ``@revision`` if need be.
        layers: Which layers will be held; None for all, ``NO_LAYERS`` for the small files alone.
        progress: Hears which part from 0 to 1 of the shards is here.
        tell: Hears why nothing happens for a while.

    Raises:
        UserError: It cannot be had, or not be kept.
    """
    called = cache_name_of(name)
    folder = models_dir() / f"{called}{CHECKPOINT}"
    with kept_in(folder.parent, 0):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(lock_of(folder.parent, called), tell), ending_in_order():
            known = read_entries(folder.parent).get(called.casefold())
            if known is None:  # noted before its shards come: what is cut short can be removed
                fetch_checkpoint(name, folder, NO_LAYERS)
                write_entry(folder.parent, Entry(called, (folder.name,), (0,), (), name, "hub"))
            elif (known.source, known.files) != (name, (folder.name,)):
                raise UserError(
                    f"there is another model called {known.name} already, from {known.source}",
                    hint=f"remove it: p2pnode models rm {known.name}",
                )
            fetch_checkpoint(name, folder, layers, progress=progress)
    return folder


def fetch_shards(
    folder: Path, layers: range, progress: Progress, tell: Callable[[str], None]
) -> None:
    """Fetch those shards of ``layers`` that a checkpoint of the cache lacks.

    Another node of this machine may fetch into the same folder: one waits for the other. Nothing is
    fetched into a folder of a person's own.

    Raises:
        UserError: They cannot be had.
    """
    models = models_dir()
    if folder.parent != models:
        return
    lock = lock_of(models, folder.name.removesuffix(CHECKPOINT))
    with kept_in(folder, 0), locked(lock, tell):
        fetch_missing(folder, layers, progress=progress)

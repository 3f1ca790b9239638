"""Checkpoints of a hub in the user's cache: fetched under their id, as far as they are needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pnode.errors import UserError
from p2pnode.node.entries import CHECKPOINT, Entry, read_entries, write_entry
from p2pnode.node.fetching import Progress
from p2pnode.node.model_cache import models_dir
from p2pnode.node.pull_order import ending_in_order, kept_in, locked

_LOCK: Final = ".lock"


def fetch_id(
    name: str, layers: range | None, progress: Progress, tell: Callable[[str], None]
) -> Path:
    """Fetch the small files of a checkpoint, and the shards of ``layers`` where they are given.

    What is there is not fetched again, and what was cut short goes on where it ended.

    Args:
        name: ``hf:owner/repo``, with ``@revision`` if need be.
        layers: Which layers will be held; None where that is not known yet.
        progress: Hears which part from 0 to 1 of the shards is here.
        tell: Hears why nothing happens for a while.

    Raises:
        UserError: It cannot be had, or not be kept.
    """
    from p2pnode.engine.torch.hub import NO_LAYERS, cache_name_of, fetch_checkpoint

    called = cache_name_of(name)
    folder = models_dir() / f"{called}{CHECKPOINT}"
    with kept_in(folder.parent, 0):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{called.casefold()}{_LOCK}", tell), ending_in_order():
            known = read_entries(folder.parent).get(called.casefold())
            if known is not None and known.source != name:
                raise UserError(
                    f"there is another model called {known.name} already, from {known.source}",
                    hint=f"remove it: p2pnode models rm {known.name}",
                )
            fetch_checkpoint(name, folder, layers or NO_LAYERS, progress=progress)
            if known is None:
                write_entry(folder.parent, Entry(called, (folder.name,), (0,), (), name, "hub"))
    return folder


def fetch_shards(folder: Path, layers: range, progress: Progress) -> bool:
    """Fetch those shards of ``layers`` that are not in a checkpoint's folder; tell if any were.

    Raises:
        UserError: They cannot be had.
    """
    from p2pnode.engine.torch.hub import fetch_missing

    with kept_in(folder, 0):
        return fetch_missing(folder, layers, progress=progress)

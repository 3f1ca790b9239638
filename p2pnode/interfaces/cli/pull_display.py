"""How far a pull is: a bar on a terminal, a line for each tenth elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from p2pnode.errors import ModelError
from p2pnode.interfaces.cli.output import note, progress
from p2pnode.node.catalogue import KNOWN_MODELS
from p2pnode.node.disk import size_in_words
from p2pnode.node.model_list import InstalledModel
from p2pnode.node.whole import is_whole, sha256_of

_STEPS = 10


@contextmanager
def pulling(name: str, *, show: bool = True) -> Iterator[Callable[[float], None]]:
    """Show how far a pull is, from its first news on: one that finds the model here is quiet."""
    if not show:
        yield lambda _: None
    elif sys.stderr.isatty():
        with ExitStack() as display:
            yield _Bar(name, display)
    else:
        yield _Lines(name)


class _Bar:
    """A bar that appears when there is something to show, and goes with ``display``."""

    def __init__(self, name: str, display: ExitStack) -> None:
        self._name = name
        self._display = display
        self._bar: Callable[[float], None] | None = None

    def __call__(self, part: float) -> None:
        if self._bar is None and part >= 1:
            return
        if self._bar is None:
            self._bar = self._display.enter_context(progress(f"pulling {self._name}"))
        self._bar(part)


class _Lines:
    def __init__(self, name: str) -> None:
        self._name = name
        self._told = -1

    def __call__(self, part: float) -> None:
        step = int(part * _STEPS)
        if step <= self._told or (self._told < 0 and part >= 1):
            return
        self._told = step
        note(f"pulling {self._name}: {step * 100 // _STEPS} %")


def twin_of(found: InstalledModel) -> str:
    """Return the name of another model of the very same bytes, or nothing.

    A file is hashed only where one of its size is known.
    """
    from p2pnode.node import model_cache as cache

    hashes = {model.sha256: model.name for model in KNOWN_MODELS.values() if model.verified}
    others = [one for one in cache.installed() if one.name != found.name and len(one.paths) == 1]
    sizes = {model.size for model in KNOWN_MODELS.values() if model.verified}
    same_size = [one for one in others if one.size == found.size and not one.problem]
    if len(found.paths) > 1 or found.name in KNOWN_MODELS:
        return ""
    if found.size not in sizes and not same_size:
        return ""
    try:
        digest = sha256_of(found.path)
    except OSError:
        return ""
    if digest in hashes:
        return hashes[digest]
    return next((one.name for one in same_size if is_whole(one.path, one.size, digest)), "")


def remark(path: Path) -> str:
    """Say what keeps a model that is here from being run by this machine, or nothing."""
    embedders = (model for model in KNOWN_MODELS.values() if model.is_embedder)
    if path.name in {model.file for model in embedders}:
        return ""
    from p2pnode.interfaces.cli.model_card import fit, held_here
    from p2pnode.node.model_facts import facts_of

    try:
        facts = facts_of(path)
    except ModelError as error:
        return f"it cannot be run here: {error}"
    if facts.problem:
        return f"it cannot be run here: {facts.why_not}"
    facts, per_weight, free = held_here(path, facts)
    peers = facts.peers_needed(free, per_weight)
    if peers == 1:
        return ""
    takes = size_in_words(facts.memory_as(per_weight))
    fits = facts.layers_that_fit(free, per_weight)
    return f"it takes {takes} of memory: {fit(fits, facts.layers, peers)}"

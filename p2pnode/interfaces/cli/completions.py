"""What the Tab key may put behind an option: names of models, and of peers.

A name that came over the network is offered only if no shell could take it for more than a word:
what Tab puts into a line is run by Enter.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from p2pnode.errors import UserError

if TYPE_CHECKING:
    from p2pnode.node.snapshot import NodeSnapshot

COMPLETING: Final = "_P2PNODE_COMPLETE"
"""The variable by which a shell asks for completions, as click names it."""

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]*")
_PATIENCE = 0.3  # seconds for a node's answer: somebody waits with a finger on the key


def complete_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Offer the models that are known and those that are here, and files where none begins so."""
    from p2pnode.node.catalogue import KNOWN_MODELS

    here = _names_in_cache()
    embedders = {name for name, model in KNOWN_MODELS.items() if model.is_embedder}
    names = {*KNOWN_MODELS, *here} - embedders  # nobody starts a node with one
    found = [
        CompletionItem(name, help="here" if name in here else "to be fetched")
        for name in sorted(_offered(names, incomplete))
    ]
    return found or [CompletionItem(incomplete, type="file")]


def complete_peer(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Offer the names of the peers that the running node sees."""
    picture = _glance(context)
    names = set() if picture is None else {one.name for one in picture.peers if not one.is_gone}
    return [CompletionItem(name) for name in sorted(_offered(names, incomplete))]


def complete_own_model(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Offer the models that the running node has."""
    picture = _glance(context)
    names = set() if picture is None else {one.name for one in picture.models}
    return [CompletionItem(name) for name in sorted(_offered(names, incomplete))]


def _glance(context: click.Context) -> "NodeSnapshot | None":
    """Return the picture of the running node; None where it is not to be had quickly."""
    from p2pnode.net.control_client import ControlClient
    from p2pnode.net.control_lines import find_control_path
    from p2pnode.node.places import state_directory
    from p2pnode.node.snapshot_json import from_json

    state = context.params.get("state")
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        with ControlClient(find_control_path(directory), timeout=_PATIENCE) as client:
            return from_json(client.call("snapshot"))
    except (UserError, OSError):
        return None


def _offered(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete) and _WORD.fullmatch(name)]


def _names_in_cache() -> set[str]:
    from p2pnode.node import model_cache

    try:
        return {one.name for one in model_cache.installed()}
    except (UserError, OSError):
        return set()

"""What is said where a node makes no embeddings."""

from collections.abc import Iterator
from contextlib import contextmanager

from p2pnode.errors import UserError

UNKNOWN_METHOD = "no such method"
"""What a node's answer begins with where it has none of the name."""


def cannot_embed() -> UserError:
    return UserError(
        "this node makes no embeddings: its p2pnode is of a version without them",
        hint="update p2pnode, and start the node again",
    )


@contextmanager
def no_embeddings() -> Iterator[None]:
    """Say plainly that a running node has no method for embeddings."""
    try:
        yield
    except UserError as error:
        if str(error).startswith(UNKNOWN_METHOD):
            raise cannot_embed() from error
        raise

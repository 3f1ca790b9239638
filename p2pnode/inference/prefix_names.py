"""Names for beginnings of a session: what a requester and a stage call the same KV cache.

A *boundary* is where a batch ends: only there a cache may be cut, as how rows are grouped decides
the last bits. A name is a hash of all that decides what a stage holds below a boundary: a secret,
the model's root, every batch with its token ids, and who computed each layer up to the stage's
last. Whoever does not know the secret cannot make a name, nor guess the tokens from one.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain as joined
from typing import Final

from p2pnode.inference.activations import Batch
from p2pnode.inference.cover import Leg
from p2pnode.inference.prefix_body import NAME_BYTES
from p2pnode.values import value

NEWEST: Final = 8
"""Boundaries named at the end of a session whatever they are: a chat template may strip the end of
an answer, a few tokens, and then its next turn begins with all but those."""

_STEP: Final = 16
_PER_OCTAVE: Final = 8
_PERSON: Final = b"p2pnode reuse"
_SALT: Final = b"p2pnode/beginning/1"


@value
class Scope:
    """Who may find each other's beginnings.

    Attributes:
        secret: What their names are made with.
        is_shared: Whether several requesters agreed on it; else the stage keeps them apart, too.
    """

    secret: bytes
    is_shared: bool = False


def shared_scope(word: str, swarm_secret: bytes) -> Scope | None:
    """Return the scope of those in a swarm who agreed on ``word``; None for an empty one."""
    if not word:
        return None
    secret = hashlib.blake2b(word.encode(), key=swarm_secret[:64], person=_PERSON).digest()
    return Scope(secret, is_shared=True)


def landmarks(ends: Iterable[int]) -> list[int]:
    """Return the boundaries worth a name: eight for each doubling of the position.

    Whether one is depends on those before it alone, so that two sessions which begin alike name the
    same.
    """
    found: list[int] = []
    before = 0
    for end in ends:
        if _floor(end) > _floor(before):
            found.append(end)
        before = end
    return found


def named(ends: Sequence[int]) -> list[int]:
    """Return the boundaries that a session names when it is kept."""
    return sorted({*landmarks(ends), *ends[-NEWEST:]})


def digests(
    scope: Scope, root: bytes, batches: Iterable[Batch], wanted: Iterable[int]
) -> dict[int, bytes]:
    """Return, for each boundary that is ``wanted``, the hash of all batches of token ids below."""
    left = set(wanted)
    running = hashlib.sha256(_SALT + len(scope.secret).to_bytes(2, "big") + scope.secret + root)
    found: dict[int, bytes] = {}
    for batch in batches:
        running.update(batch.rows.to_bytes(4, "big"))
        for piece in batch.pieces:
            running.update(piece[0].payload)
        if batch.end in left:
            found[batch.end] = running.digest()
            left.remove(batch.end)
            if not left:
                break
    return found


def lineage(legs: Sequence[Leg], index: int) -> bytes:
    """Say how the layers up to those of ``legs[index]`` are computed.

    Where f32 passes between two that compute alike, the cut between them changes nothing.
    """
    runs: list[tuple[int, int, bytes, str]] = []
    for leg in legs[: index + 1]:
        run = leg.run
        how = run.numerics.to_bytes(8, "big") if run.numerics else run.peer
        start, stop = run.layers.start, run.layers.stop
        if runs and runs[-1][2:] == (how, "f32"):
            start, *_ = runs.pop()
        runs.append((start, stop, how, leg.out_dtype))
    own = legs[index].run.layers
    said = [f"{start} {stop} {how.hex()} {out}" for start, stop, how, out in runs]
    return "; ".join(joined(said, (f"{own.start} {own.stop}",))).encode()


def name_of(digest: bytes, lineage: bytes) -> bytes:
    """Return what a leg of that lineage calls the boundary of that digest."""
    return hashlib.sha256(digest + lineage).digest()[:NAME_BYTES]


def _floor(position: int) -> int:
    """Return the last mark at ``position`` or below."""
    step = max(_STEP, (1 << position.bit_length() >> 1) // _PER_OCTAVE)
    return position // step * step

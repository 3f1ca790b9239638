"""What a stage asks of the engine, and what came of it, as values.

A core never computes: it hands out work, and whoever holds an engine (a worker thread in a node,
the virtual network in a simulation) runs it (:mod:`.running`) and gives the result back.
"""

from typing import TypeAlias

from p2pnode.engine.base import SessionKey
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.inference.activations import Batch
from p2pnode.inference.tensor_policy import Coded
from p2pnode.values import value
from p2pnode.wire.calibration import Calibration
from p2pnode.wire.states import Rung


@value
class Recipe:
    """How to code what leaves, where the session allows more than f16.

    Attributes:
        rungs: For each batch the codings to try, the coarsest first; the last is never refused.
        kl: Nats that a coding may cost a batch.
        calibration: What both ends know of the states that leave; None for nothing.
        codings: Mask of the codings that left here before.
    """

    rungs: tuple[tuple[Rung, ...], ...]
    kl: float
    calibration: Calibration | None
    codings: int


@value
class Forward:
    """Run ``layers`` over ``batches``, which follow each other from the session's KV length on.

    Attributes:
        session: Names the KV cache.
        layers: Layers to run.
        batches: In order of position.
        out_dtype: How to code hidden states: ``f16`` or ``f32``, unless there is a recipe.
        sampling: How to draw tokens; None for a stage that is not the last.
        sample_from: First position whose token is wanted.
        positions: What was admitted; reserved in the KV cache with the first batch. 0 for none.
        recipe: How to code hidden states where more than ``out_dtype`` is allowed.
        calibration: What both ends know of the states that come in; None for nothing.
        past: The tokens that the draws depend on, before the first of them; None for none.
    """

    session: SessionKey
    layers: range
    batches: tuple[Batch, ...]
    out_dtype: str
    sampling: Sampling | None
    sample_from: int
    positions: int = 0
    recipe: Recipe | None = None
    calibration: Calibration | None = None
    past: Past | None = None


@value
class Release:
    """Free the session's KV cache."""

    session: SessionKey


@value
class Step:
    """Run one batch of each of several sessions, together where the engine can.

    Attributes:
        parts: At least two, no session twice; all of the same layers, and of at most
            :data:`~p2pnode.engine.base.MOST_ROWS_TOGETHER` rows each.
    """

    parts: tuple[Forward, ...]


@value
class Keep:
    """Call the session's KV cache ``kept`` from now on, and forget what is at ``length`` or beyond.

    A session may be opened anew under the old name.

    Attributes:
        session: Names the cache.
        kept: Its new name.
        length: Positions to keep.
        layers: Those of the cache.
        is_copy: Whether to copy them to a place of just that size, and free the session's.
    """

    session: SessionKey
    kept: SessionKey
    length: int
    layers: range
    is_copy: bool


@value
class Adopt:
    """Begin ``session`` with the first ``length`` positions of a kept cache.

    Attributes:
        session: Names the KV cache that is to be.
        kept: The one to begin with.
        layers: Those of both.
        length: Positions that it is to have.
        positions: What was admitted.
        is_copy: Whether the kept one stays.
        sampling: How tokens are to be drawn; None for a stage that is not the last.
    """

    session: SessionKey
    kept: SessionKey
    layers: range
    length: int
    positions: int
    is_copy: bool
    sampling: Sampling | None = None


Work: TypeAlias = Forward | Step | Release | Keep | Adopt


@value
class Computed:
    """The results, one a batch of the work; for the last stage, only those with a token.

    Attributes:
        batches: Hidden states, or sampled tokens at the position they are to stand at.
        compute_us: Engine time of the whole work.
        coded: What the coding of each batch came to, where there was a recipe.
    """

    batches: tuple[Batch, ...]
    compute_us: int
    coded: tuple[Coded, ...] = ()


@value
class WorkFailed:
    """The engine could not do it; the session on this stage is of no more use.

    Attributes:
        reason: Why, for a person.
        is_input_bad: Whether what came in was no use, and its sender is to blame.
        is_undrawable: Whether no token can be drawn as asked, and nobody here is to blame.
        is_memory_short: Whether there was no memory for it; the engine goes on.
        is_engine_gone: Whether the engine is of no more use to any session.
        is_engine_suspect: Whether the engine failed at this, and may go on with others.
        is_overflow: Whether what it computed of sound input is no number, or beyond all measure; so
            it would be the next time.
    """

    reason: str
    is_input_bad: bool = False
    is_undrawable: bool = False
    is_memory_short: bool = False
    is_engine_gone: bool = False
    is_engine_suspect: bool = False
    is_overflow: bool = False


@value
class Stepped:
    """What came of each part of a :class:`Step`, in their order."""

    results: tuple[Computed | WorkFailed, ...]


WorkResult: TypeAlias = Computed | WorkFailed | Stepped
"""Of a step that failed as a whole, one failure is that of each part."""


def parts_of(result: WorkResult) -> tuple[Computed | WorkFailed, ...]:
    """Return what came of each part of a step, or of the only session."""
    return result.results if isinstance(result, Stepped) else (result,)


def forwards_of(work: Work) -> tuple[Forward, ...]:
    """Return what is to be computed for each session; nothing where memory is to be freed."""
    if isinstance(work, Step):
        return work.parts
    return (work,) if isinstance(work, Forward) else ()

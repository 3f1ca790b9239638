"""What a stage asks of the engine, as values, and the one function that carries it out.

A core never computes: it hands out work, and whoever holds an engine (a worker thread in a node,
the virtual network in a simulation) runs it and gives the result back. Coding tensors belongs to
the work too: 128 rows of width 4096 take a millisecond, which a network loop does not have.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from p2pnode.engine.base import Engine, SessionKey
from p2pnode.engine.sampling.options import Sampling
from p2pnode.engine.sampling.past import Past
from p2pnode.errors import (
    CapacityError,
    DeviceLostError,
    DrawError,
    EngineError,
    GenerationError,
    RemoteProtocolError,
)
from p2pnode.inference.activations import Batch, Piece, token_batch
from p2pnode.inference.coding import decode_pieces_untrusted, encode_within
from p2pnode.inference.draws import Draws
from p2pnode.inference.tensor_policy import Coded
from p2pnode.inference.terms import mask_of
from p2pnode.values import value
from p2pnode.wire.calibration import Calibration
from p2pnode.wire.states import Rung, encode_states
from p2pnode.wire.tensor import activations_to_slices


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


Work: TypeAlias = Forward | Release


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


WorkResult: TypeAlias = Computed | WorkFailed


def run_work(
    engine: Engine, work: Work, clock: Callable[[], float], draws: Draws | None = None
) -> WorkResult:
    """Carry out ``work``; ``clock`` gives seconds and is read around the engine's part alone.

    ``draws`` keeps what is worth keeping between two draws of a session; without it no answer
    follows a schema.
    """
    with np.errstate(all="ignore"):  # what is no number is refused by `_is_sound`
        return run_work_quietly(engine, work, clock, draws or Draws())


def run_work_quietly(
    engine: Engine, work: Work, clock: Callable[[], float], draws: Draws
) -> WorkResult:
    """Carry out ``work`` in a thread where numpy warns of no number, as :func:`be_quiet` has it.

    To tell numpy so for each job takes 40 us of a token.
    """
    if isinstance(work, Release):
        engine.close(work.session)
        draws.close(work.session)
        return Computed((), 0)
    try:
        return _forward(engine, work, clock, draws)
    except (
        RemoteProtocolError,
        GenerationError,
        CapacityError,
        MemoryError,
        EngineError,
    ) as error:
        return _failed(error)


def be_quiet() -> None:
    """Have numpy not warn in this thread, whatever numbers it meets from now on."""
    np.seterr(all="ignore")


def _failed(error: Exception) -> WorkFailed:
    match error:
        case RemoteProtocolError():
            return WorkFailed(str(error), is_input_bad=True)
        case DrawError():
            return WorkFailed(str(error), is_undrawable=True)
        case CapacityError():
            return WorkFailed(str(error), is_memory_short=True)
        case MemoryError():  # numpy's, or Python's own, which says nothing
            return WorkFailed(f"out of memory: {error}".rstrip(": "), is_memory_short=True)
        case DeviceLostError():
            return WorkFailed(str(error), is_engine_gone=True)
        case EngineError():
            return WorkFailed(str(error), is_engine_suspect=True)
    return WorkFailed(str(error), is_overflow=True)


def _forward(engine: Engine, work: Forward, clock: Callable[[], float], draws: Draws) -> Computed:
    inputs = [_decode_untrusted(batch, work, engine.info.vocab_size) for batch in work.batches]
    if work.positions and work.batches[0].start == 0:
        engine.reserve(work.session, work.layers, work.positions)  # as it was admitted, exactly
        draws.prepare(work.sampling)
    try:
        return _computed(engine, work, inputs, clock, draws)
    except DrawError:
        raise
    except GenerationError as overflow:
        came = [np.asarray(states, np.float32) for states in inputs if work.layers.start]
        if all(_is_sound(states, _LOUD_RMS) for states in came):
            raise
        raise RemoteProtocolError(f"{overflow}; what came in was so nearly") from None


def _computed(
    engine: Engine,
    work: Forward,
    inputs: list[NDArray[np.int64] | NDArray[np.float32]],
    clock: Callable[[], float],
    draws: Draws,
) -> Computed:
    began = clock()
    hidden = engine.forward(work.session, work.layers, inputs, work.batches[0].start)
    tokens = None
    if work.sampling is not None:
        tokens = draws.tokens(
            engine,
            work.session,
            work.sampling,
            work.sample_from,
            work.past,
            work.batches,
            hidden,
        )
    spent = max(0, round((clock() - began) * 1e6))
    share = spent // len(work.batches)  # a batch's part of the job; jobs of one are the rule
    if tokens is not None:
        done = tuple(
            token_batch(
                (drawn.token,),
                batch.end,
                batch.compute_us + share,
                batch.micronats,
                batch.codings,
                drawn.beside,
            )
            for batch, drawn in zip(work.batches, tokens, strict=True)
            if drawn is not None
        )
        return Computed(done, spent)
    _check_sound(work, hidden)
    if work.recipe is not None:
        return _coded(work, work.recipe, hidden, spent, share)
    plain = tuple(
        Batch(batch.start, batch.rows, (_plain(rows, work),), batch.compute_us + share)
        for batch, rows in zip(work.batches, hidden, strict=True)
    )
    return Computed(plain, spent)


def _plain(rows: NDArray[np.float32], work: Forward) -> Piece:
    is_f16 = work.out_dtype == "f16"
    return activations_to_slices(rows) if is_f16 else encode_states(rows, Rung.F32)


def _coded(
    work: Forward, recipe: Recipe, hidden: list[NDArray[np.float32]], spent: int, share: int
) -> Computed:
    """Code ``hidden`` by the recipe; each batch tells what all of the chain has cost it so far."""
    batches: list[Batch] = []
    outcomes: list[Coded] = []
    codings = recipe.codings
    for batch, rows, rungs in zip(work.batches, hidden, recipe.rungs, strict=True):
        pieces, coded = encode_within(rows, rungs, recipe.kl, recipe.calibration)
        codings |= mask_of(coded.rung)
        batches.append(
            Batch(
                batch.start,
                batch.rows,
                pieces,
                batch.compute_us + share,
                batch.micronats + min(round(coded.kl * 1e6), _MOST_MICRONATS),
                batch.codings | codings,
            )
        )
        outcomes.append(coded)
    return Computed(tuple(batches), spent, tuple(outcomes))


def _decode_untrusted(
    batch: Batch, work: Forward, vocab_size: int
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Return [rows] token ids or [rows, d_model] hidden states.

    Raises:
        RemoteProtocolError: A token is none of the model's ``vocab_size``, or a state is not
            finite or beyond all measure: whoever sent it is to blame, and nobody after.
    """
    if work.layers.start == 0:
        parts = [np.frombuffer(ids.payload, "<u4").astype(np.int64) for (ids,) in batch.pieces]
        ids = parts[0] if len(parts) == 1 else np.concatenate(parts)  # [rows]
        if (ids[0] if len(ids) == 1 else ids.max(initial=0)) >= vocab_size:
            # The engine would call it our own mistake, and a node does not survive those.
            raise RemoteProtocolError(f"a token beyond the vocabulary of {vocab_size}")
        return ids
    states = decode_pieces_untrusted(batch.pieces, work.calibration)
    if not _is_sound(states, MOST_RMS):
        raise RemoteProtocolError(
            f"hidden states of positions {batch.start} to {batch.end} are not finite, or beyond"
            " all measure"
        )
    return states


def _check_sound(work: Forward, hidden: list[NDArray[np.float32]]) -> None:
    """Send nothing on that the next stage would refuse: one of the two would be blamed wrongly.

    It takes 2.5 us of a token.

    Raises:
        GenerationError: The engine's numbers are not finite, or beyond all measure.
    """
    for batch, rows in zip(work.batches, hidden, strict=True):  # [rows, d_model]
        if not _is_sound(rows, MOST_RMS):
            raise GenerationError(
                f"its engine's hidden states of positions {batch.start} to {batch.end} are not"
                " finite, or beyond all measure"
            )


def _is_sound(states: NDArray[np.float32], most_rms: float) -> bool:
    """Whether every row is finite, and no longer than ``most_rms`` allows."""
    most = most_rms * most_rms * states.shape[1]
    if len(states) == 1:  # a token: this is 2 us of a hop, the other way 10
        row = states[0]
        return bool(row.dot(row) <= most)  # NaN is not
    energy = np.einsum("ij,ij->i", states, states)  # [rows]
    return bool((energy <= most).all())


MOST_RMS = 32768.0
"""The root mean square of a hidden state beyond which it is no model's. The largest measured is
964 (SmolLM2-135M at token 0, one channel at 23,140); a million in one of 4096 still fits."""

_LOUD_RMS = MOST_RMS / 8
"""Beyond, four times the largest measured, what came in is to blame for what an engine cannot make
of it: else a state just below the most has any honest stage that adds to it fail for its sender."""


_MOST_MICRONATS = 10**9  # a thousand nats: the answer is nothing to such a cut

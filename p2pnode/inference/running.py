"""The one function that carries work out, in whatever holds an engine.

Coding tensors belongs to the work too: 128 rows of width 4096 take a millisecond, which a network
loop does not have. Of a step that several sessions share, each has its own outcome: whoever sent
what is no use, or asked for what there is no memory for, fails alone.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from p2pnode.engine.base import Engine, SessionRows
from p2pnode.errors import (
    CapacityError,
    DeviceLostError,
    DrawError,
    EngineError,
    GenerationError,
    ModelChangedError,
    RemoteProtocolError,
)
from p2pnode.inference.activations import Batch, token_batch
from p2pnode.inference.draws import Drawn, Draws
from p2pnode.inference.leaving import coded_by, plain_piece
from p2pnode.inference.sound import (
    LOUD_RMS,
    check_sound,
    decode_ids_untrusted,
    decode_states_untrusted,
    is_sound,
)
from p2pnode.inference.work import (
    Adopt,
    Computed,
    Forward,
    Keep,
    Release,
    Step,
    Stepped,
    Work,
    WorkFailed,
    WorkResult,
)

logger = logging.getLogger(__name__)

Inputs: TypeAlias = list[NDArray[np.int64]] | list[NDArray[np.float32]]
"""Of each batch [rows] token ids or [rows, d_model] hidden states."""


def run_work(
    engine: Engine, work: Work, clock: Callable[[], float], draws: Draws | None = None
) -> WorkResult:
    """Carry out ``work``; ``clock`` gives seconds and is read around the engine's part alone.

    ``draws`` keeps what is worth keeping between two draws of a session; without it no answer
    follows a schema.
    """
    with np.errstate(all="ignore"):  # what is no number is refused by `check_sound`
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
        if isinstance(work, Forward):
            return _forward(engine, work, clock, draws)
        if isinstance(work, Keep | Adopt):
            return _handed_on(engine, work, draws)
        return _step(engine, work, clock, draws)
    except _FAILURES as error:
        return _failed(error)


def be_quiet() -> None:
    """Have numpy not warn in this thread, whatever numbers it meets from now on."""
    np.seterr(all="ignore")


_FAILURES = (RemoteProtocolError, GenerationError, CapacityError, MemoryError, EngineError)


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


def _handed_on(engine: Engine, work: Keep | Adopt, draws: Draws) -> Computed | WorkFailed:
    """Hand a cache on from one session to another.

    One that is gone, since the engine is another by now, is no fault of the engine, nor is memory
    short then: nothing is lost but the work that would have been saved.
    """
    if isinstance(work, Keep):
        return _kept(engine, work, draws)
    session, kept, layers, length = work.session, work.kept, work.layers, work.length
    if engine.length(kept, layers.start) < length:
        return _GONE
    if work.is_copy:
        engine.fork(kept, session, layers, length, work.positions)
    else:
        engine.rename(kept, session)
        engine.truncate(session, length)
        engine.reserve(session, layers, work.positions)
    draws.prepare(work.sampling)
    return Computed((), 0)


def _kept(engine: Engine, work: Keep, draws: Draws) -> Computed | WorkFailed:
    """Keep what a session leaves; whatever comes of it, the session itself is closed."""
    draws.close(work.session)
    try:
        if engine.length(work.session, work.layers.start) < work.length:
            return _GONE
        if work.is_copy:
            engine.fork(work.session, work.kept, work.layers, work.length, work.length)
        else:
            engine.rename(work.session, work.kept)
            engine.truncate(work.kept, work.length)
    except CapacityError as error:
        return WorkFailed(str(error))
    finally:
        engine.close(work.session)
    return Computed((), 0)


_GONE = WorkFailed("what was kept of the session is gone")


# One session


def _forward(engine: Engine, work: Forward, clock: Callable[[], float], draws: Draws) -> Computed:
    inputs = _prepare(engine, work, draws)
    try:
        began = clock()
        hidden = engine.forward(work.session, work.layers, inputs, work.batches[0].start)
        tokens = _draw(engine, work, hidden, draws)
        return _result(work, hidden, tokens, _microseconds(clock() - began))
    except DrawError:
        raise
    except GenerationError as overflow:
        raise _blame(work, inputs, overflow) from None


def _prepare(engine: Engine, work: Forward, draws: Draws) -> Inputs:
    """Return what the engine is given for each batch; reserve its memory with the first.

    Raises:
        RemoteProtocolError: What came in is no use.
        CapacityError: There is not enough memory.
    """
    if work.layers.start:
        inputs: Inputs = [decode_states_untrusted(one, work.calibration) for one in work.batches]
    else:
        inputs = [decode_ids_untrusted(one, engine.info.vocab_size) for one in work.batches]
    if work.positions and work.batches[0].start == 0:
        engine.reserve(work.session, work.layers, work.positions)  # as it was admitted, exactly
        draws.prepare(work.sampling)
    return inputs


def _blame(work: Forward, inputs: Inputs, overflow: GenerationError) -> Exception:
    """Return who is to blame for what is no number: what came in may have been nearly none."""
    came = [np.asarray(states, np.float32) for states in inputs if work.layers.start]
    if all(is_sound(states, LOUD_RMS) for states in came):
        return overflow
    return RemoteProtocolError(f"{overflow}; what came in was so nearly")


def _draw(
    engine: Engine,
    work: Forward,
    hidden: list[NDArray[np.float32]],
    draws: Draws,
    logits: NDArray[np.float32] | None = None,
) -> list[Drawn | None] | None:
    """Draw a token after each batch that wants one; None at a stage that is not the last.

    ``logits`` [1, vocab] are those after the only batch, where they are known.
    """
    if work.sampling is None:
        return None
    return draws.tokens(
        engine,
        work.session,
        work.sampling,
        work.sample_from,
        work.past,
        work.batches,
        hidden,
        logits,
    )


def _result(
    work: Forward,
    hidden: list[NDArray[np.float32]],
    tokens: list[Drawn | None] | None,
    spent: int,
) -> Computed:
    """Return what leaves, after ``spent`` microseconds of the engine.

    Raises:
        GenerationError: The engine's numbers are no use.
    """
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
    check_sound(work.batches, hidden)
    if work.recipe is not None:
        return coded_by(work, work.recipe, hidden, spent, share)
    plain = tuple(
        Batch(batch.start, batch.rows, (plain_piece(rows, work),), batch.compute_us + share)
        for batch, rows in zip(work.batches, hidden, strict=True)
    )
    return Computed(plain, spent)


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))


# Several sessions


def _step(engine: Engine, step: Step, clock: Callable[[], float], draws: Draws) -> Stepped:
    """Compute the parts of a step together, each with its own outcome."""
    results: dict[int, Computed | WorkFailed] = {}
    ready: dict[int, Inputs] = {}
    for number, work in enumerate(step.parts):
        try:
            ready[number] = _prepare(engine, work, draws)
        except _FAILURES as error:
            results[number] = _failed(error)
    began = clock()
    found = _together(engine, step, ready)
    seconds = clock() - began
    if found is None:  # whoever is to blame is found out, and the others get theirs
        results |= {one: _by_itself(engine, step.parts[one], clock, draws) for one in ready}
    else:
        began = clock()
        logits = _logits(engine, step, found)
        drawing = (clock() - began) / max(1, len(logits))
        rows = sum(map(len, found.values()))
        for number, hidden in found.items():
            spent = seconds * len(hidden) / rows + drawing * (number in logits)
            part = (step.parts[number], ready[number], [hidden], logits.get(number))
            results[number] = _finish(engine, *part, spent, clock, draws)
    return Stepped(tuple(results[number] for number in range(len(step.parts))))


def _together(
    engine: Engine, step: Step, ready: Mapping[int, Inputs]
) -> dict[int, NDArray[np.float32]] | None:
    """Return the hidden states [rows, d_model] of the parts that are ready.

    None where the engine does not do them together: no session changed, or whatever changed is
    computed again.

    Raises:
        DeviceLostError: The device is gone.
        ModelChangedError: The weights are no longer what was hashed.
    """
    if len(ready) < 2:
        return None
    works = [step.parts[number] for number in ready]
    parts = [
        SessionRows(work.session, inputs[0], work.batches[0].start)
        for work, inputs in zip(works, ready.values(), strict=True)
    ]
    try:
        found = engine.forward_many(works[0].layers, parts)
    except (DeviceLostError, ModelChangedError):
        raise
    except Exception as error:
        logger.warning(
            "a step of %d sessions failed, each is computed alone: %s", len(parts), error
        )
        return None
    return dict(zip(ready, found, strict=True))


def _by_itself(
    engine: Engine, work: Forward, clock: Callable[[], float], draws: Draws
) -> Computed | WorkFailed:
    """Compute a part alone, after all of them together could not be."""
    try:
        return _forward(engine, work, clock, draws)
    except (DeviceLostError, ModelChangedError):
        raise
    except _FAILURES as error:
        return _failed(error)
    except Exception as unknown:
        logger.exception("the engine failed")
        return WorkFailed(f"the engine failed: {unknown}", is_engine_suspect=True)


def _logits(
    engine: Engine, step: Step, found: Mapping[int, NDArray[np.float32]]
) -> dict[int, NDArray[np.float32]]:
    """Return logits [1, vocab] after each part that a token is drawn after, all at once.

    None where that fails: each draw then finds out for itself.
    """
    wanted = [number for number in found if _is_drawn_alike(step.parts[number])]
    if len(wanted) < 2:
        return {}
    try:
        logits = engine.logits(np.concatenate([found[number][-1:] for number in wanted]))
    except DeviceLostError:
        raise
    except _FAILURES:
        return {}
    return {number: logits[at : at + 1] for at, number in enumerate(wanted)}


def _is_drawn_alike(work: Forward) -> bool:
    """Whether a token is drawn from the logits after its batch."""
    sampling = work.sampling
    if sampling is None or sampling.mean:
        return False
    return work.batches[0].end >= work.sample_from


def _finish(
    engine: Engine,
    work: Forward,
    inputs: Inputs,
    hidden: list[NDArray[np.float32]],
    logits: NDArray[np.float32] | None,
    spent: float,
    clock: Callable[[], float],
    draws: Draws,
) -> Computed | WorkFailed:
    """Draw and code what leaves, as for a session alone; ``spent`` seconds are its part so far."""
    try:
        began = clock()
        tokens = _draw(engine, work, hidden, draws, logits)
        return _result(work, hidden, tokens, _microseconds(spent + clock() - began))
    except DrawError as undrawn:
        return _failed(undrawn)
    except GenerationError as overflow:
        return _failed(_blame(work, inputs, overflow))
    except DeviceLostError:
        raise
    except _FAILURES as error:
        return _failed(error)

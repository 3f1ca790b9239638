"""What a node says of an answer in JSON, as :mod:`~p2pnode.interfaces.python.events` has it.

A node of another version may say more, which is ignored, and less, for which there are defaults.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from p2pnode.errors import UserError
from p2pnode.interfaces.python.events import (
    Answer,
    Broken,
    Embeddings,
    Event,
    Plan,
    Planned,
    Queued,
    Remark,
    Repaired,
    Rest,
    Shortened,
    Stage,
    Token,
    TokenChance,
    ToolCall,
    Waiting,
)

Body: TypeAlias = Mapping[str, Any]
T = TypeVar("T")


def event_of(body: object) -> Event | None:
    """Return an event as a program has it; None for one that this version does not know.

    Raises:
        UserError: It is not what a node says.
    """
    return _read(_event, body)


def answer_of(body: object) -> Answer:
    """Return the facts of an answer; raises as :func:`event_of`."""
    return _read(_answer, body)


def embeddings_of(body: object) -> Embeddings:
    """Return what the method ``embed`` answers; raises as :func:`event_of`."""
    return _read(_embeddings, body)


_ODD: Final = (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError)


def _read(read: Callable[[Body], T], body: object) -> T:
    try:
        return read(_object(body))
    except _ODD as error:
        raise UserError(
            f"the node that answers is of another version ({type(error).__name__}: {error})",
            hint="stop it and start it again",
        ) from error


def _object(body: object) -> Body:
    if not isinstance(body, Mapping):
        raise TypeError("no object")
    return body


def _event(body: Body) -> Event | None:
    read = _EVENTS.get(body.get("event", ""))
    return None if read is None else read(body)


def _planned(body: Body) -> Event:
    return Planned(
        plan=_plan(body["plan"]),
        prompt_tokens=int(body.get("prompt_tokens", 0)),
        reused=int(body.get("reused", 0)),
    )


def _token(body: Body) -> Event:
    chance = body.get("logprobs")
    return Token(
        text=str(body.get("text", "")),
        token=int(body["token"]),
        position=int(body.get("position", 0)),
        chance=None if chance is None else _chance(chance),
        calls=_calls(body),
    )


def _calls(body: Body) -> tuple[ToolCall, ...]:
    calls = map(_object, body.get("tool_calls", ()))
    return tuple(ToolCall(str(call["name"]), str(call["arguments"])) for call in calls)


def _broken(body: Body) -> Broken:
    return Broken(
        epoch=int(body.get("epoch", 0)),
        peers=_texts(body.get("peers", ())),
        reason=str(body.get("reason", "")),
        names=_texts(body.get("names", ())),
        layers=_runs(body.get("layers", ())),
        wait_s=float(body.get("wait", 0.0)),
    )


def _repaired(body: Body) -> Repaired:
    return Repaired(
        epoch=int(body.get("epoch", 0)),
        seconds=float(body.get("seconds", 0.0)),
        stages=tuple(map(_stage, body.get("stages", ()))),
        instead=tuple(map(_stage, body.get("instead", ()))),
        is_bit_reproducible=bool(body.get("bit_reproducible", True)),
        changed=str(body.get("bit_reproducible_why", "")),
    )


def _waiting(body: Body) -> Event:
    return Waiting(
        layers=_runs(body.get("layers", ())),
        wait_s=float(body.get("wait", 0.0)),
        reasons=_texts(body.get("reasons", ())),
    )


_EVENTS: Final[Mapping[str, Callable[[Body], Event]]] = {
    "queued": lambda body: Queued(ahead=int(body.get("ahead", 0))),
    "note": lambda body: Remark(line=str(body.get("text", ""))),
    "history": lambda body: Shortened(left_out=int(body.get("left_out", 0))),
    "plan": _planned,
    "token": _token,
    "rest": lambda body: Rest(text=str(body.get("text", "")), calls=_calls(body)),
    "waiting": _waiting,
    "broken": _broken,
    "repaired": _repaired,
}


def _answer(body: Body) -> Answer:
    plan, hop = body.get("plan"), body.get("hop_ms", {})
    sent = body.get("activations", {})
    stopped = body.get("stopped_by")
    return Answer(
        text=str(body.get("text", "")),
        finish=str(body.get("finish", "")),
        token_ids=_numbers(body.get("token_ids", ())),
        prompt_ids=_numbers(body.get("prompt_ids", ())),
        stopped_by=None if stopped is None else str(stopped),
        left_out=int(body.get("left_out", 0)),
        plan=None if plan is None else _plan(plan),
        first_token_ms=float(body.get("first_token_ms", 0.0)),
        queued_ms=float(body.get("queued_ms", 0.0)),
        total_ms=float(body.get("total_ms", 0.0)),
        tokens_per_s=float(body.get("tokens_per_s", 0.0)),
        hop_p50_ms=_float_or_none(hop.get("p50")),
        hop_p99_ms=_float_or_none(hop.get("p99")),
        is_bit_reproducible=bool(body.get("bit_reproducible", True)),
        changed=str(body.get("bit_reproducible_why", "")),
        broken=tuple(map(_broken, body.get("broken", ()))),
        repaired=tuple(map(_repaired, body.get("repaired", ()))),
        codings=_texts(sent.get("codings", ())),
        kl_per_token=float(sent.get("kl_per_token", 0.0)),
        calls=_calls(body),
        reused=int(body.get("reused", 0)),
        chances=tuple(map(_chance, body.get("logprobs", ()))),
    )


def _embeddings(body: Body) -> Embeddings:
    vectors = tuple(tuple(map(float, vector)) for vector in body["embeddings"])
    return Embeddings(vectors, int(body.get("tokens", 0)), str(body.get("model", "")))


def _plan(body: Body) -> Plan:
    return Plan(
        objective=str(body.get("objective", "")),
        stages=tuple(map(_stage, body["stages"])),
        hop_ms=tuple(map(float, body.get("hop_ms", ()))),
        expected_ms_per_token=float(body.get("expected_ms_per_token", 0.0)),
        reasons=_texts(body.get("reasons", ())),
    )


def _stage(body: Body) -> Stage:
    return Stage(
        peer=str(body["peer"]),
        name=str(body.get("name", "")),
        layers=_run(body["layers"]),
        cost_ms=float(body.get("cost_ms", 0.0)),
        numerics=str(body.get("numerics", "")),
        reason=str(body.get("reason", "")),
    )


def _chance(body: Body) -> TokenChance:
    return TokenChance(
        token=int(body["token"]),
        text=str(body.get("text", "")),
        spelled=bytes(_numbers(body.get("bytes", ()))),
        logprob=float(body["logprob"]),
        top=tuple(map(_chance, body.get("top", ()))),
    )


def _run(ends: Any) -> range:  # noqa: ANN401 -- JSON
    first, past = ends
    return range(int(first), int(past))


def _runs(runs: Any) -> tuple[range, ...]:  # noqa: ANN401 -- JSON
    return tuple(map(_run, runs))


def _texts(texts: Any) -> tuple[str, ...]:  # noqa: ANN401 -- JSON
    return tuple(map(str, texts))


def _numbers(numbers: Any) -> tuple[int, ...]:  # noqa: ANN401 -- JSON
    return tuple(map(int, numbers))


def _float_or_none(number: Any) -> float | None:  # noqa: ANN401 -- JSON
    return None if number is None else float(number)

"""What a face asks, in words; parsed once, from the JSON that faces send."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from p2pnode.engine.base import ModelInfo
from p2pnode.engine.sampling.options import MOST_ENDS, Sampling
from p2pnode.engine.sampling.schema_text import compact_schema
from p2pnode.errors import UserError
from p2pnode.inference.request import GenerationRequest
from p2pnode.inference.terms import ACTIVATIONS
from p2pnode.node.answering.sampling_params import sampling_of
from p2pnode.node.text_worker import Prompt
from p2pnode.sansio import NodeId
from p2pnode.scheduler.route import Objective
from p2pnode.text.stops import checked_stops
from p2pnode.text.tool_calls.forced import schema_of
from p2pnode.text.tool_calls.offered import (
    Choice,
    Tool,
    ToolChoice,
    checked_choice,
    checked_tools,
)

MAX_TOKENS: Final = 256
"""Tokens of an answer whose question names no limit."""

_SHOWN: Final = 60  # letters of a value in a message
_LONGEST_WAIT: Final = 3600.0
"""Seconds that an answer may wait for peers; ``--wait`` takes as many."""

_LONGEST_NAME: Final = 4096
"""Letters of a model's name, which may be the path of its file."""

NO_CALL: Final = ToolChoice(Choice.NONE)

Params: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat, to be answered as the model's template has it.

    Attributes:
        messages: Each a mapping with a role and a content; the text process checks them.
        tools: What the model may call.
        choice: Whether it may, or must.
        documents: What the template may lay before it; None for nothing.
        goes_on: Whether the last message is the beginning of the answer.
    """

    messages: list[Any]
    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = NO_CALL
    documents: list[Any] | None = None
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text to be gone on with, without a template."""

    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt that is tokens already."""

    ids: tuple[int, ...]


Said: TypeAlias = Conversation | PlainText | Tokens


@dataclass(frozen=True, slots=True)
class Question:
    """What a face asks.

    Attributes:
        said: What is to be answered or gone on with.
        max_tokens: Most tokens to produce.
        sampling: How to draw them.
        stop: Strings that end the answer, and are none of its words.
        wait: Seconds to wait for peers that cover the model.
        lost_wait: The same for layers lost in mid-answer; None for the node's setting, or ``wait``
            if that is longer.
        prefer: Hex prefixes or names of peers to use.
        avoid: Hex prefixes or names of peers to spare.
        objective: ``latency`` or ``throughput``.
        ignore_eos: Go on to ``max_tokens`` whatever the model says; for measurements.
        activations: How stages send each other hidden states; None for the node's setting.
        details: Whether the facts name every step and hop; for measurements.
        model: The name of the model that is asked; empty for the node's first.
    """

    said: Said
    max_tokens: int = MAX_TOKENS
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    wait: float = 10.0
    lost_wait: float | None = None
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    objective: Objective = "latency"
    ignore_eos: bool = False
    activations: str | None = None
    details: bool = False
    model: str = ""

    @classmethod
    def of(cls, params: Params) -> "Question":
        """Read a question as faces send it.

        ``params``: ``prompt`` (text) or ``messages`` (a chat) or ``prompt_ids``; ``raw`` for a
        prompt to be continued rather than answered; ``tools`` and ``tool_choice`` as OpenAI has
        them; ``documents`` for the chat template; ``goes_on`` if the last message, the model's own,
        is the beginning of the answer; the fields of this class by their names; and what
        :mod:`p2pnode.node.answering.sampling_params` reads.

        Raises:
            UserError: A parameter is impossible.
        """
        try:
            asked = cls(
                said=Tokens(()),
                max_tokens=_max_tokens(params),
                sampling=sampling_of(params),
                stop=_stop(params),
                wait=_seconds(params.get("wait", 10.0)),
                lost_wait=None if (lost := params.get("lost_wait")) is None else _seconds(lost),
                prefer=_names(params, "prefer"),
                avoid=_names(params, "avoid"),
                objective="throughput" if params.get("objective") == "throughput" else "latency",
                ignore_eos=bool(params.get("ignore_eos", False)),
                activations=_activations(params),
                details=bool(params.get("details", False)),
                model=model_of(params),
            )
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UserError(f"impossible parameter: {error}") from error
        return _with_forced_call(replace(asked, said=_said(params)))


def request_of(
    question: Question,
    prompt: Prompt,
    model: ModelInfo,
    meant: Callable[[str], NodeId | None],
) -> GenerationRequest:
    """Turn a question into the core's request; its words became ``prompt``.

    ``meant`` resolves the name of a peer. To prefer or avoid one that nobody knows is no failure:
    the plan says that it changes nothing.

    Raises:
        UserError: A name could mean several peers.
    """
    prefer = {name: meant(name) for name in question.prefer}
    avoid = {name: meant(name) for name in question.avoid}
    stop = frozenset() if question.ignore_eos else prompt.stop_ids | frozenset(model.eos_ids)
    sampling = question.sampling
    if sampling.schema:
        sampling = replace(sampling, ends=tuple(sorted(stop))[:MOST_ENDS])
    absent = [name for name, peer in (prefer | avoid).items() if peer is None]
    return GenerationRequest(
        prompt=prompt.ids,
        max_tokens=min(question.max_tokens, max(1, model.context_length - len(prompt.ids))),
        sampling=sampling,
        stop=stop,
        wait=question.wait,
        lost_wait=question.lost_wait,
        prefer=frozenset(peer for peer in prefer.values() if peer is not None),
        avoid=frozenset(peer for peer in avoid.values() if peer is not None),
        objective=question.objective,
        activations=question.activations,
        space=model.space_hash32,
        notes=tuple(
            f"nobody here is called {name!r}: --prefer and --avoid of it change nothing"
            for name in absent
        ),
    )


def _with_forced_call(question: Question) -> Question:
    """Hold the answer to the schema of a call, where it must be one."""
    said = question.said
    if not isinstance(said, Conversation):
        return question
    schema = schema_of(said.tools, said.choice)
    if schema is None:
        return question
    if question.sampling.schema:
        raise UserError(
            "an answer cannot be both a call of a tool and JSON of another form",
            hint='leave one out, or let the model choose with tool_choice "auto"',
        )
    text = compact_schema(json.dumps(schema))
    return replace(question, sampling=replace(question.sampling, schema=text))


def _said(params: Params) -> Said:
    if (given := params.get("prompt_ids")) is not None:
        if not isinstance(given, list) or not all(type(token) is int for token in given):
            raise UserError("prompt_ids must be a list of token ids")
        return Tokens(tuple(given))
    messages, prompt = params.get("messages"), params.get("prompt")
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError("the prompt is empty", hint="say what the model should answer")
        if params.get("raw"):
            return PlainText(prompt)
        messages = [{"role": "user", "content": prompt}]
    if not isinstance(messages, list) or not messages:
        raise UserError("give a prompt, or messages, or prompt_ids")
    tools = checked_tools(params.get("tools"))
    choice = checked_choice(params.get("tool_choice"), tools)
    documents = _list_or_none(params, "documents")
    return Conversation(messages, tuple(tools), choice, documents, _goes_on(params, messages))


def _goes_on(params: Params, messages: list[Any]) -> bool:
    if not params.get("goes_on"):
        return False
    last = messages[-1]
    if len(messages) < 2 or not isinstance(last, Mapping) or last.get("role") != "assistant":
        raise UserError("an answer goes on from a last message of the model's own alone")
    if not isinstance(last.get("content"), str) or last.get("tool_calls"):
        raise UserError("the beginning of an answer must be a text, without calls of tools")
    return True


def _list_or_none(params: Params, key: str) -> list[Any] | None:
    value = params.get(key)
    if value is not None and not isinstance(value, list):
        raise UserError(f"{key} must be a list")
    return value


def _max_tokens(params: Params) -> int:
    asked = params.get("max_tokens", MAX_TOKENS)
    if type(asked) is not int or asked < 1:
        raise UserError(f"impossible parameter: max_tokens is {asked!r}")
    return asked


def _stop(params: Params) -> tuple[str, ...]:
    stop = params.get("stop") or ()
    stops = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, list | tuple) or not all(isinstance(one, str) for one in stops):
        raise UserError("stop must be a string, or a list of strings")
    return checked_stops(stops)


def seconds_of(params: Params, name: str, default: float) -> float:
    """Return how long to wait for peers.

    Raises:
        UserError: It is no such time.
    """
    try:
        return _seconds(params.get(name, default))
    except (TypeError, ValueError) as error:
        raise UserError(f"impossible parameter: {error}") from error


def model_of(params: Params) -> str:
    """Return the name of the model that is asked; empty where none is named.

    Raises:
        UserError: It is no name.
    """
    name = params.get("model") or ""
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise UserError("model must be the name of a model")
    return name


def _seconds(asked: str | float) -> float:
    seconds = float(asked)
    if not 0 <= seconds <= _LONGEST_WAIT:
        raise ValueError(f"a wait of {seconds:g} s is none: 0 to {_LONGEST_WAIT:.0f}")
    return seconds


def _activations(params: Params) -> str | None:
    asked = params.get("activations")
    if asked is not None and asked not in ACTIVATIONS:
        raise UserError(
            f"hidden states cannot be sent as {str(asked)[:_SHOWN]!r}",
            hint=f"one of {', '.join(ACTIVATIONS)}",
        )
    return asked


def _names(params: Params, key: str) -> tuple[str, ...]:
    value = params.get(key, ())
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{key} must be a list of peer names")
    return tuple(value)

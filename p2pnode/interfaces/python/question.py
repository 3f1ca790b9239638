"""What a program may ask, as keyword arguments, and the parameters that they become."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_type_hints

Params: TypeAlias = dict[str, Any]
Message: TypeAlias = Mapping[str, object]
"""A message of a chat: ``{"role": "user", "content": "..."}``."""


class QuestionOptions(TypedDict, total=False):
    """What may be said beside a prompt or the messages of a chat; what is left out is as usual.

    Attributes:
        max_tokens: Most tokens of the answer, 256.
        stop: A string, or up to 16, that end the answer and are none of its words.
        temperature: 0 is greedy, the default; 1 draws from the model's own distribution.
        top_k: Draw among so many of the likeliest; 0, the default, for all.
        top_p: Draw among the fewest that reach this probability together, 1.
        min_p: Draw among those at least so likely, as a share of the likeliest, 0.
        seed: The same seed gives the same answer, 0 to 2**64 - 1.
        repetition_penalty: Above 1 discourages the last tokens, 1.
        penalty_last_n: How many tokens back that looks, 64.
        presence_penalty: Off the logit of each token that the answer has, 0.
        frequency_penalty: Off it for each time that the answer has it, 0.
        logprobs: Say how likely each token was, and so many of the likeliest in its place.
        schema: A JSON schema that the answer follows, as text or as an object.
        json_mode: Whether the answer is any JSON object.
        wait: Seconds to wait for peers that cover the model, 10.
        lost_wait: Seconds to wait for layers lost in mid-answer.
        prefer: Names, or heads of keys, of peers to use.
        avoid: Those of peers to spare.
        objective: What the plan is to be best at.
        ignore_eos: Go on to ``max_tokens`` whatever the model says; for measurements.
        activations: How stages send each other hidden states: ``f32``, ``f16``, ``i8``, ``q4``
            or ``auto``.
        model: Which of the node's models answers, by its name; the first.
    """

    max_tokens: int
    stop: str | Sequence[str]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    repetition_penalty: float
    penalty_last_n: int
    presence_penalty: float
    frequency_penalty: float
    logprobs: int
    schema: str | Mapping[str, object]
    json_mode: bool
    wait: float
    lost_wait: float
    prefer: Sequence[str]
    avoid: Sequence[str]
    objective: Literal["latency", "throughput"]
    ignore_eos: bool
    activations: str
    model: str


class PromptOptions(QuestionOptions, total=False):
    """The same for a prompt.

    Attributes:
        raw: Whether the prompt is to be gone on with, and not answered by the model's template.
    """

    raw: bool


class ChatOptions(QuestionOptions, total=False):
    """The same for a chat.

    Attributes:
        tools: What the model may call, each ``{"type": "function", "function": {...}}``.
        tool_choice: ``auto``, ``none``, ``required``, or ``{"type": "function", "function":
            {"name": ...}}`` for one that must be called.
        documents: What the template may lay before it.
    """

    tools: Sequence[Mapping[str, object]]
    tool_choice: str | Mapping[str, object]
    documents: Sequence[object]


def prompt_params(prompt: str | Sequence[int], options: PromptOptions) -> Params:
    """Return the parameters of a question: a prompt in words, or tokens that are given already.

    Raises:
        TypeError: There is no such option.
    """
    _check("generate", options, _OF_PROMPTS)
    said: Params = {"prompt": prompt} if isinstance(prompt, str) else {"prompt_ids": list(prompt)}
    return said | _plain(options)


def chat_params(messages: Sequence[Message], options: ChatOptions) -> Params:
    """Return the parameters of a question in a chat; raises as :func:`prompt_params`."""
    _check("chat", options, _OF_CHATS)
    return {"messages": [dict(message) for message in messages]} | _plain(options)


_OF_PROMPTS: Final = frozenset(get_type_hints(PromptOptions))
_OF_CHATS: Final = frozenset(get_type_hints(ChatOptions))


def _check(method: str, options: Mapping[str, object], known: frozenset[str]) -> None:
    """A question with an option that nobody reads would be answered as if it were not there."""
    if unknown := sorted(set(options) - known):
        raise TypeError(
            f"{method}() has no option {unknown[0]!r}; it has {', '.join(sorted(known))}"
        )


def _plain(options: Mapping[str, Any]) -> Params:
    """Return what JSON can write: any sequence becomes a list."""
    return {
        key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in options.items()
        if value is not None
    }

"""What OpenAI's parameters mean to a node."""

from typing import Any, Final

from p2pnode.engine.sampling.options import MOST_TOP_K
from p2pnode.interfaces.http.fields import Fields
from p2pnode.interfaces.http.params import (
    MAX_TOKENS,
    MOST_PAST,
    MOST_TOKENS,
    WAIT,
    seed_of,
    stops_of,
)

MOST_CHOICES: Final = 16
"""Answers to one request, ``n``: each is a session in every stage."""

MOST_TOP: Final = 20

DRAWN: Final = frozenset(
    {"temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"}
)
EXTENSIONS: Final = frozenset(
    {"top_k", "min_p", "repetition_penalty", "penalty_last_n", "prefer", "avoid", "activations"}
    | {"wait"}
)
"""Parameters of ours, which other servers of local models mostly have too."""

HARMLESS: Final = frozenset(
    {"user", "store", "metadata", "service_tier", "parallel_tool_calls", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "verbosity"}
)
"""Parameters that change nothing of what a client reads here."""


def sampling_params(fields: Fields) -> dict[str, Any]:
    """Return how tokens are drawn, in a node's terms; defaults are OpenAI's.

    Raises:
        ApiError: A parameter is out of range; names it.
    """
    params: dict[str, Any] = {
        "temperature": fields.number("temperature", 0, 2, 1.0),
        "top_p": max(1e-6, fields.number("top_p", 0, 1, 1.0)),
        "presence_penalty": fields.number("presence_penalty", -2, 2, 0.0),
        "frequency_penalty": fields.number("frequency_penalty", -2, 2, 0.0),
        "seed": seed_of(fields),
        "stop": stops_of(fields, "stop"),
        "top_k": fields.whole("top_k", -1, MOST_TOP_K, 0),
        "min_p": fields.number("min_p", 0, 1, 0.0),
        "repetition_penalty": fields.number("repetition_penalty", 0.1, 10, 1.0),
        "penalty_last_n": fields.whole("penalty_last_n", 1, MOST_PAST, 64),
        "prefer": fields.texts("prefer"),
        "avoid": fields.texts("avoid"),
        "wait": fields.number("wait", 0, 3600, WAIT),
        "details": True,
    }
    params["top_k"] = max(0, params["top_k"])  # elsewhere -1 is all
    if fields.has("activations"):
        params["activations"] = fields.text("activations")
    fields.refuse("logit_bias", "tokens cannot be made likelier one by one")
    return params


def length_params(fields: Fields, *names: str) -> dict[str, Any]:
    """Return the most tokens of an answer, by the first of ``names`` that is there."""
    for name in names:
        if (asked := fields.whole(name, 1, MOST_TOKENS, None)) is not None:
            return {"max_tokens": asked}
    return {"max_tokens": MAX_TOKENS}


def several(params: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Return ``count`` questions that differ in their seed."""
    return [{**params, "seed": (params["seed"] + number) % 2**64} for number in range(count)]

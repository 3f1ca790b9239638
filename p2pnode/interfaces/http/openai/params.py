"""What OpenAI's parameters mean to a node."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from p2pnode.interfaces.http.errors import ApiError, wrong
from p2pnode.interfaces.http.fields import Fields

MAX_TOKENS: Final = 4096
"""Tokens of an answer whose request names no limit, if the context has room: memory for them is
reserved in every stage, so the context's end would be dear."""

MOST_TOKENS: Final = 1_000_000
"""That a request may name; an answer ends at the context's end anyway."""

MOST_CHOICES: Final = 16
"""Answers to one request, ``n``: each is a session in every stage."""

MOST_TOP: Final = 20

_MOST_PAST: Final = 8192  # of an answer whose tokens depend on those before
_MOST_SEED: Final = 2**63
_WAIT: Final = 30.0

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
        "top_k": fields.whole("top_k", -1, 2**31, 0),
        "min_p": fields.number("min_p", 0, 1, 0.0),
        "repetition_penalty": fields.number("repetition_penalty", 0.1, 10, 1.0),
        "penalty_last_n": fields.whole("penalty_last_n", 1, _MOST_PAST, 64),
        "prefer": fields.texts("prefer"),
        "avoid": fields.texts("avoid"),
        "wait": fields.number("wait", 0, 3600, _WAIT),
        "details": True,
    }
    params["top_k"] = max(0, params["top_k"])  # elsewhere -1 is all
    if fields.has("activations"):
        params["activations"] = fields.text("activations")
    fields.refuse("logit_bias", "tokens cannot be made likelier one by one")
    return params


def seed_of(fields: Fields) -> int:
    """Return the seed; without one each answer is another, as temperature means it."""
    seed = fields.whole("seed", -_MOST_SEED, _MOST_SEED, None)
    return secrets.randbits(63) if seed is None else seed % 2**64


def stops_of(fields: Fields, name: str) -> list[str]:
    return [stop for stop in fields.texts(name) if stop]


def length_params(fields: Fields, *names: str) -> dict[str, Any]:
    """Return the most tokens of an answer, by the first of ``names`` that is there."""
    for name in names:
        if (asked := fields.whole(name, 1, MOST_TOKENS, None)) is not None:
            return {"max_tokens": asked}
    return {"max_tokens": MAX_TOKENS}


def within_past(params: dict[str, Any]) -> dict[str, Any]:
    """Return the same, with no more tokens than a draw may look back on, where it does."""
    looks_back = (
        params.get("schema")
        or params.get("json_mode")
        or any(
            params[name] != usual
            for name, usual in (
                ("presence_penalty", 0),
                ("frequency_penalty", 0),
                ("repetition_penalty", 1),
            )
        )
    )
    if looks_back:
        return {**params, "max_tokens": min(params["max_tokens"], _MOST_PAST)}
    return params


def format_params(wanted: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
    """Return what form the answer has: ``response_format``, or what other APIs have in its place.

    Raises:
        ApiError: There is no such form.
    """
    if wanted is None:
        return {}
    if not isinstance(wanted, Mapping):
        raise wrong(place, f"{place} must be an object")
    match wanted.get("type"):
        case "text":
            return {}
        case "json_object":
            return {"json_mode": True}
        case "json_schema":
            named = wanted.get("json_schema", wanted)
            schema = named.get("schema") if isinstance(named, Mapping) else None
            if not isinstance(schema, Mapping):
                raise wrong(place, f"{place} of type json_schema has no schema")
            return {"schema": schema}
        case _:
            raise wrong(place, f"{place}.type must be text, json_object or json_schema")


def several(params: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Return ``count`` questions that differ in their seed."""
    return [{**params, "seed": (params["seed"] + number) % 2**64} for number in range(count)]


def refuse_foreign(asked: str, served: str) -> None:
    """Refuse a model that is not the served one; names what there is.

    Raises:
        ApiError: It is another.
    """
    plain = asked.casefold().removesuffix(":latest")
    if not served or plain != served.casefold():
        there = f"there is: {served}" if served else "this node has no model"
        raise ApiError(
            404, f"no model {asked[:100]!r} here; {there}", code="model_not_found", param="model"
        )
